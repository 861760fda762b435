"""Each step of the list that records pass."""

import json

import pytest

from limbeck.contracts.config import resolve
from limbeck.contracts.records import UNSCORED, Question, Record, Source
from limbeck.contracts.registry import FILTERS
from limbeck.data.filters.base import FilterConfig, FilterContext
from limbeck.data.filters.dedup import Duplicates
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.in_evaluation import InEvaluation
from limbeck.data.filters.length import Length
from limbeck.data.filters.limit import Limit
from limbeck.data.filters.mark_entities import MarkEntities
from limbeck.data.filters.quality import Quality
from limbeck.data.filters.record_log import RecordLog

TEXT = "高血压患者平时要低盐饮食，规律服药，每天监测血压，避免熬夜和情绪激动，定期复查。"
SOURCES = {"made": Source("made", False, 3), "free": Source("free", True, 1_000)}


@pytest.fixture
def context(tmp_path, pack):
    with RecordLog(tmp_path / "dropped.jsonl") as log:
        asked = Question("q", "recall", "头痛怎么办", ("休息",), "single")
        yield FilterContext(pack, Lexicon(pack.names), SOURCES, [asked], 0, log)


def make(index, question, answer=TEXT, *, source="free", **fields):
    return Record(str(index), question, answer, f"g{index}", source, **fields)


def run(step, records, context):
    """Ids of the records that stay, and the counts of the others."""
    kept = [record.id for record in step.run(iter(records), context=context)]
    return kept, dict(context.log.total_dropped())


@pytest.mark.parametrize("name", FILTERS)
def test_every_kind_is_a_filter_that_bears_its_name(name):
    kind = resolve(FILTERS, name, what="filter")
    assert issubclass(kind, FilterConfig) and kind().kind == name


def test_lengths_are_those_of_free_text(context):
    records = [make(0, "头"), make(1, "头痛"), make(2, "头", source="made"), make(3, "头痛", "短")]
    assert run(Length(), records, context) == (
        ["1", "2"],
        {"question_too_short": 1, "answer_too_short": 1},
    )


def test_what_evaluation_asks_is_not_trained_on(context):
    records = [make(0, "头痛，怎么办？"), make(1, "头痛怎么办", source="made"), make(2, "发热")]
    assert run(InEvaluation(), records, context) == (["1", "2"], {"in_evaluation": 1})


def test_questions_of_later_sources_count_too(context):
    late = Question("l", "recall", "发热", ("休息",), "single")

    def read():
        yield make(0, "发热")
        context.questions.append(late)

    assert list(InEvaluation().run(read(), context=context)) == []


def test_of_equal_records_the_trusted_one_stays(context):
    records = [
        make(0, "头痛", confidence=0.2),
        make(1, "头痛", confidence=0.99),
        make(2, "头痛", source="made"),
        make(3, "发热", confidence=0.2),
        make(4, "发热", confidence=UNSCORED),
    ]
    assert run(Duplicates(), records, context) == (["2", "4"], {"duplicate": 3})


def test_near_duplicates_are_sought_in_free_text_alone(context):
    close = TEXT.replace("定期复查", "定期来复查")
    records = [make(0, "头痛"), make(1, "头痛", close)]
    assert run(Duplicates(nearly_equal="drop"), records, context) == (
        ["0"],
        {"near_duplicate": 1},
    )
    made = [make(i, "头痛", text, source="made") for i, text in enumerate((TEXT, close))]
    assert run(Duplicates(nearly_equal="drop"), made, context)[0] == ["0", "1"]


def test_nearly_equal_texts_stay_unless_asked(context):
    records = [make(0, "头痛"), make(1, "头痛", TEXT.replace("定期复查", "定期来复查"))]
    assert run(Duplicates(), records, context) == (["0", "1"], {})


def test_quality_reads_confidences_and_leaves_the_order(context):
    records = [
        make(0, "头痛", confidence=0.95),
        make(1, "发热", source="made"),
        make(2, "咳嗽", confidence=0.5),
        make(3, "皮疹", confidence=UNSCORED, images=("images/a.png",)),
    ]
    assert run(Quality(), records, context) == (["0", "1", "3"], {"low_confidence": 1})
    assert context.card["confidence"]["fitted"] is False


def test_a_limit_is_that_of_the_source_and_the_seed(context):
    records = [make(index, f"第{index}问", source="made") for index in range(9)]
    kept, dropped = run(Limit(), records, context)
    assert len(kept) == 3 and dropped == {"over_limit": 6}
    assert run(Limit(), records[::-1], context)[0] == kept[::-1]


def test_entities_are_marked_and_none_is_dropped(context):
    (record,) = MarkEntities().run([make(0, "高血压怎么办")], context=context)
    assert record.entities[0].text == "高血压" and record.specialty == "cardiology"
    assert not context.log.total_dropped()


def test_drops_are_written_with_their_reason_and_its_text(context, tmp_path):
    run(Length(), [make(0, "头", place="a.jsonl:3")], context)
    context.log.__exit__()
    (line,) = (tmp_path / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    expected = {"reason": "question_too_short", "source": "free", "place": "a.jsonl:3"}
    assert json.loads(line) == expected | {"detail": "头"}
    reason = context.log.reasons["question_too_short"]
    assert (reason.zh, reason.en) == ("问题过短", "question too short")
