"""The class that owns a corpus's paths: what it writes it reads back, and damage is named."""

import json
import subprocess
import sys

import pytest

from limbeck.contracts.corpus import Corpus, Domain
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import SPLITS, AnswerFormat, Question, Record

QUESTIONS = (
    Question("t", "triage", "看什么科？", ("心内科",), "single"),
    Question("r", "recall", "有哪些症状？", ("头痛", "乏力"), "list"),
)
CARD = {
    "pack": "medical",
    "tasks": {"triage": {"zh": "分诊", "en": "triage"}},
    "specialties": {},
    "headline_tasks": ["recall"],
    "disclaimer": {"zh": "仅供参考", "en": "for reference only"},
    "answer_format": {"joiner": "、", "unknown_answer": "不知道"},
}


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


def test_what_is_written_is_read(corpus):
    records = [Record(str(number), "问？", "答", "g", "s") for number in range(3)]
    for count, split in enumerate(SPLITS):
        corpus.write_records(split, records[:count])
        assert list(corpus.records(split)) == records[:count]
    assert corpus.count_records() == {"train": 0, "validation": 1, "test": 2}
    corpus.write_questions(QUESTIONS)
    assert [path.stem for path in corpus.task_paths()] == ["recall", "triage"]
    assert sorted(item.id for item in corpus.questions()) == ["r", "t"]


def test_domain_and_answer_format_come_from_the_card(corpus):
    assert corpus.domain() == Domain()
    corpus.write_card(CARD)
    assert corpus.domain().headline_tasks == ("recall",)
    assert corpus.domain().titles["tasks"]["triage"]["en"] == "triage"
    assert corpus.answer_format() == AnswerFormat(joiner="、", unknown_answer="不知道")
    corpus.add_to_card("labelled_by", {"model": "m"})
    assert json.loads(corpus.card_path.read_text()) == CARD | {"labelled_by": {"model": "m"}}


@pytest.mark.parametrize("card", ["{", "[]", '{"pack": "medical"}'])
def test_a_damaged_card_is_named(corpus, card):
    corpus.card_path.write_text(card)
    with pytest.raises(DataError, match=r"card\.json.*make the corpus again"):
        corpus.answer_format()


def test_a_card_that_is_no_object_is_named_everywhere(corpus):
    corpus.card_path.write_text("[]")
    for use in (corpus.domain, lambda: corpus.add_to_card("a", {})):
        with pytest.raises(DataError, match=r"list, expected an object.*make the corpus again"):
            use()


def test_missing_files_are_named(corpus):
    with pytest.raises(DataError, match="file is missing"):
        next(corpus.records("train"))
    assert list(corpus.questions()) == []


def test_a_question_that_cannot_be_scored_is_named_with_its_line(corpus):
    corpus.write_questions(QUESTIONS)
    path = corpus.questions_path / "recall.jsonl"
    path.write_text(path.read_text() + '{"id": "x"}\n')
    with pytest.raises(DataError, match="not a question") as error:
        list(corpus.questions())
    assert (error.value.path, error.value.line) == (str(path), 2)


def test_the_module_imports_no_torch():
    code = "import sys, limbeck.contracts.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
