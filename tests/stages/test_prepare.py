import json
import os
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work, hash_files
from limbeck.contracts.corpus import Corpus, Domain
from limbeck.contracts.errors import DataError, LeakError, LimbeckError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import SPLITS, Question, Record, read_jsonl
from limbeck.models.checkpoints import load_tokenizer
from limbeck.packs import folder
from limbeck.stages.config.prepare import Config
from limbeck.stages.prepare import run

CONSULT = folder("medical") / "consult"
KNOWLEDGE = {
    "kind": "knowledge",
    "facts": {"forms_per_fact": 2},
    "classification": {"train_sets": 2},
}
FILTERS = [
    {"kind": "length"},
    {"kind": "in_evaluation"},
    {"kind": "duplicates", "nearly_equal": "drop"},
    {"kind": "quality"},
]
ANSWER = "这是一个足够长的回答，建议到医院就诊并完善检查，遵医嘱治疗。"
TESTBED = Path(os.environ.get("LIMBECK_TESTBED", Path(__file__).parents[3] / "shared" / "data"))


def dirty(path, **fields):
    """A source of raw Chinese texts, many of which go."""
    return {"kind": "jsonl", "path": path, "normalization": "zh", "max_dropped_ratio": 1} | fields


def prepare(path, *sources, **fields):
    for name in ("corpus", "state"):
        (path / name).mkdir(parents=True)
    config = Config.model_validate(
        {"stage": "prepare", "pack": "medical", "sources": list(sources), **fields}
    )
    metrics = run(config, work=Work("corpus", path / "corpus", path / "state"))
    return path / "corpus", metrics


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepare")
    return prepare(path, KNOWLEDGE, dirty(CONSULT), filters=FILTERS)


def write_rows(path, *pairs):
    rows = [{"question": question, "answer": answer} for question, answer in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_all(corpus):
    return [record for split in SPLITS for record in read_records(corpus, split)]


def read_records(corpus, split):
    return [Record.from_json(value) for value in read_jsonl(corpus / "records" / f"{split}.jsonl")]


def read_questions(corpus):
    return [
        Question.from_json(value)
        for path in sorted((corpus / "questions").glob("*.jsonl"))
        for value in read_jsonl(path)
    ]


def test_counts_add_up(made):
    corpus, counts = made
    card = json.loads((corpus / "card.json").read_text())
    dropped = list(read_jsonl(corpus / "dropped.jsonl"))
    assert {key: counts[key] for key in card["counts"]} == card["counts"]
    for name, source in counts["sources"].items():
        assert source.items() <= card["sources"][name].items()
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert len(dropped) == sum(counts["dropped"].values())
    assert all(drop["reason"] and drop["place"] for drop in dropped)
    for source in card["sources"].values():
        assert source["read"] == source["kept"] + sum(source["dropped"].values())
    sizes = {split: len(read_records(corpus, split)) for split in counts["splits"]}
    assert sizes == counts["splits"] and sum(sizes.values()) == counts["kept"]
    assert counts["pairs"] + counts["statements"] == counts["kept"]


def test_the_dirty_records_meet_every_filter(made):
    _, counts = made
    assert {
        "broken_json",
        "missing_field",
        "duplicate",
        "near_duplicate",
        "low_confidence",
        "low_score",
        "answer_too_short",
        "answer_too_long",
    } <= counts["dropped"].keys()


def test_free_text_keeps_the_rules(made):
    corpus, counts = made
    free = [r for s in counts["splits"] for r in read_records(corpus, s) if r.source == "consult"]
    assert free
    for record in free:
        assert 15 <= len(record.answer) <= 200 and record.confidence > 0.9
        for entity in record.entities:
            text = getattr(record, entity.part)
            assert text[entity.start : entity.start + len(entity.text)] == entity.text


TASKS = {"recall", "choice", "symptom_sets", "refusal", "triage", "free"}


def test_nothing_leaks(made):
    corpus, _ = made
    held_out = [*read_records(corpus, "validation"), *read_records(corpus, "test")]
    questions = read_questions(corpus)
    check_leaks(read_records(corpus, "train"), held_out=[*held_out, *questions])
    assert {question.task for question in questions} == TASKS


def test_the_tokenizer_writes_every_training_text(made):
    corpus, _ = made
    tokenizer = load_tokenizer(corpus / "tokenizer")
    for record in random.Random(0).sample(read_records(corpus, "train"), 50):
        ids = tokenizer(record.answer, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == record.answer


def test_the_page_stands_alone(made):
    corpus, _ = made
    page = (corpus / "card.html").read_text(encoding="utf-8")
    for word in ("数据卡", "Data card", "28.7", "120,000", "心血管内科", "<svg"):
        assert word in page
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in page


def test_it_is_the_same_twice_and_takes_a_given_tokenizer(made, tmp_path):
    corpus, _ = made
    again, _ = prepare(
        tmp_path,
        KNOWLEDGE,
        dirty(CONSULT),
        filters=FILTERS,
        tokenizer=str(corpus / "tokenizer"),
    )
    left, right = hash_files(corpus), hash_files(again)
    assert left["dropped.jsonl"] == right["dropped.jsonl"]
    assert {k: v for k, v in left.items() if "jsonl" in k} == {
        k: v for k, v in right.items() if "jsonl" in k
    }
    assert len(load_tokenizer(again / "tokenizer")) == len(load_tokenizer(corpus / "tokenizer"))


def test_a_limit_is_counted(tmp_path):
    _, counts = prepare(tmp_path, dirty(CONSULT, max_records=50, name="few"), filters=FILTERS)
    assert counts["kept"] == 50 and counts["dropped"]["over_limit"] > 0


def test_a_consult_record_that_evaluation_asks_is_counted(made, tmp_path):
    corpus, _ = made
    asked = next(question for question in read_questions(corpus) if question.task == "recall")
    path = tmp_path / "own.jsonl"
    write_rows(path, (asked.question, ANSWER))
    source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
    _, counts = prepare(tmp_path / "run", KNOWLEDGE, source)
    assert counts["dropped"] == {"in_evaluation": 1}


def test_nothing_left_is_an_error_with_the_reasons(tmp_path):
    path = write_rows(tmp_path / "short.jsonl", ("头痛", "休息"))
    with pytest.raises(DataError, match="answer_too_short"):
        prepare(tmp_path / "run", dirty(path), filters=FILTERS)


OTHERS_TEXTS = [
    ("T值多少？", "-2.5 SD 及以下"),
    ("保存温度", "-20℃"),
    ("科学计数法", "10⁻⁷ mol/L，½ 片，①5mg②3mg"),
    ("code", "def f(a_b):\n    return a_b == 1  # $x$\n"),
    ("table", "| drug | dose |\n| --- | --- |\n| a | 100 mg |"),
    ("think", "<think>1 < 2</think><answer>yes</answer>"),
    ("contact", "$50 to help_desk@example.org, https://example.org/faq (now)"),
    ("marks", "e\u0301 \u2126 שָׁלוֹם ไทย"),
    ("short", "5"),
]


def test_texts_of_a_file_are_left_alone(tmp_path):
    """To the code point, and every record stays: only what is asked for changes or drops any."""
    path = write_rows(tmp_path / "own.jsonl", *OTHERS_TEXTS)
    corpus, counts = prepare(tmp_path / "run", {"kind": "jsonl", "path": path}, pack="")
    found = {record.question: record.answer for record in read_all(corpus)}
    assert found == dict(OTHERS_TEXTS)
    assert counts["dropped"] == counts["changed"] == {}


def test_changes_are_counted_with_examples(tmp_path, capfd):
    rows = [(f"体温{n}", f"３８．{n}摄氏度，注意[休息]★") for n in range(5)]
    path = write_rows(tmp_path / "own.jsonl", *rows)
    source = {"kind": "jsonl", "path": path, "normalization": "zh"}
    corpus, counts = prepare(tmp_path / "run", source, pack="")
    assert counts["changed"] == {"symbols": 5, "units": 5}
    assert counts["sources"]["own"]["changed"] == counts["changed"]
    card = json.loads((corpus / "card.json").read_text(encoding="utf-8"))
    examples = card["sources"]["own"]["changed_examples"]["symbols"]
    assert len(examples) == 3 and examples[0]["place"] == "own.jsonl:1"
    assert (examples[0]["before"], examples[0]["after"]) == (
        "３８．0摄氏度，注意[休息]★",
        "38.0摄氏度，注意[休息]",
    )
    shown = capfd.readouterr().err
    assert (
        " own " in shown
        and "changed: widths" in shown
        and "３８．0摄氏度" in shown
        and "-> 38.0" in shown
    )
    page = (corpus / "card.html").read_text(encoding="utf-8")
    assert "改写 changed" in page and "３８．0摄氏度" in page


def test_a_source_that_loses_too_much_stops_the_stage(tmp_path, capfd):
    rows = [(f"问题{n}", ANSWER if n > 2 else "") for n in range(20)]
    path = write_rows(tmp_path / "own.jsonl", *rows)
    source = {"kind": "jsonl", "path": path}
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "run", source)
    text = str(error.value)
    for part in ("'own'", "3 of its 20", "15.0%", "5.0%", "missing_field", "own.jsonl:1", "0.15"):
        assert part in text, text
    assert "missing field" in capfd.readouterr().err
    _, counts = prepare(tmp_path / "again", source | {"max_dropped_ratio": 0.15})
    assert counts["kept"] == 17


def test_repetitions_and_rows_left_out_are_no_faults(tmp_path):
    rows = [{"question": "头痛", "answer": ANSWER, "use": "1"}] * 9
    rows += [{"question": f"问题{n}", "answer": ANSWER, "use": "0"} for n in range(9)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"kind": "jsonl", "path": path, "where": {"use": "1"}, "max_dropped_ratio": 0}
    _, counts = prepare(tmp_path / "run", source)
    assert counts["dropped"] == {"filtered": 9, "duplicate": 8}


def test_a_leak_that_no_filter_drops_stops_the_stage(made, tmp_path):
    corpus, _ = made
    asked = next(question for question in read_questions(corpus) if question.task == "recall")
    path = write_rows(tmp_path / "own.jsonl", (asked.question, ANSWER))
    splits = {"validation_ratio": 0, "test_ratio": 0}
    with pytest.raises(LeakError, match=r"own\.jsonl"):
        prepare(
            tmp_path / "run",
            KNOWLEDGE,
            {"kind": "jsonl", "path": path},
            filters=[],
            splits=splits,
        )


def test_half_a_character_in_a_drop_is_shown_escaped(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"question": "头痛", "answer": "休息"}\n{"question": "\\ud800"}\n', encoding="utf-8"
    )
    source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
    corpus, counts = prepare(tmp_path / "run", source, pack="")
    assert counts["kept"] == 1 and (corpus / "card.html").is_file()


def test_nothing_left_of_a_text_is_a_drop(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", ("头痛", "★★"), ("😀", ANSWER), ("发热", ANSWER))
    _, counts = prepare(tmp_path / "run", dirty(path))
    assert (counts["kept"], counts["dropped"]) == (1, {"nothing_left": 2})


def test_a_corpus_needs_no_pack(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", ("头痛怎么办", ANSWER))
    corpus, _ = prepare(tmp_path / "run", {"kind": "jsonl", "path": path}, pack="")
    assert Corpus(corpus).domain() == Domain()
    (record,) = read_all(corpus)
    assert (record.entities, record.specialty) == ((), "")
    assert "参考语料" not in (corpus / "card.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({"sources": [{"kind": "knowledge"}]}, "source 'knowledge': a source of facts needs"),
        ({"sources": [{"kind": "triples", "path": "x"}]}, "a source of triples needs"),
        (
            {"sources": [{"kind": "jsonl", "path": "x"}], "filters": [{"kind": "quality"}]},
            "the filter `quality`",
        ),
    ],
)
def test_what_needs_a_pack_is_refused_without_one(fields, need):
    with pytest.raises(ValidationError, match=f"{need}.*set `pack`"):
        Config.model_validate({"stage": "prepare", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "sources"),
        ({"sources": [{"kind": "jsnl", "path": "x"}]}, "did you mean 'jsonl'"),
        ({"sources": [{"path": "x"}]}, "kind"),
        ({"sources": [{"kind": "csv", "path": "x", "colums": {}}]}, "colums"),
        ({"sources": [{"kind": "knowledge"}, {"kind": "knowledge"}]}, "two sources are called"),
        (
            {"sources": [{"kind": "knowledge"}], "filters": [{"kind": "qualty"}]},
            "did you mean 'quality'",
        ),
        (
            {"sources": [{"kind": "knowledge"}], "filters": [{"kind": "normalize_zh"}]},
            "unknown filter 'normalize_zh': set `normalization: zh` on each source",
        ),
        (
            {
                "sources": [{"kind": "knowledge"}],
                "filters": [{"kind": "quality", "min_confidence": 2}],
            },
            "min_confidence",
        ),
        (
            {
                "sources": [{"kind": "knowledge"}],
                "filters": [{"kind": "length", "min_answer_chars": 300}],
            },
            "above",
        ),
        ({"sources": [{"kind": "knowledge"}], "splits": {"test_ratio": 0.9}}, "test_ratio"),
    ],
)
def test_bad_configs_say_what_is_wrong(fields, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({"stage": "prepare", "pack": "medical", **fields})


def test_mutated_files_are_counted_or_named(tmp_path):
    """Every damage to a source is a named error, or drops that keep the books balanced."""
    original = (CONSULT / "part2.jsonl").read_bytes()
    chooser = random.Random(0)
    for number in range(16):
        data = bytearray(original[: chooser.randrange(len(original))])
        for _ in range(chooser.choice([0, 3, 300])):
            if data:
                data[chooser.randrange(len(data))] = chooser.randrange(256)
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data)
        source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
        try:
            _, counts = prepare(tmp_path / str(number), source)
        except LimbeckError as error:
            assert str(number) in str(error) or "no record is left" in str(error)
        else:
            assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())


@pytest.mark.slow
def test_the_real_test_bed(tmp_path):
    """The first lines of the real files; `benchmarks/` takes them whole."""
    medical = TESTBED / "medical"
    if not medical.is_dir():
        pytest.skip(f"no test bed at {TESTBED}; set LIMBECK_TESTBED to its folder")
    for name in ("toyhom_internal_medicine.gb18030.csv", "cmedqa_pairs.tsv"):
        lines = (medical / "consult" / name).read_bytes().split(b"\n")[:400]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
    rows = json.loads((medical / "intent" / "kuake_qic_train.json").read_text(encoding="utf-8"))
    (tmp_path / "train.json").write_text(json.dumps(rows[:300], ensure_ascii=False))
    _, counts = prepare(
        tmp_path,
        {
            "kind": "csv",
            "path": tmp_path / "toyhom_internal_medicine.gb18030.csv",
            "name": "toyhom",
            "columns": {"question": ["title"]},
            "max_dropped_ratio": 1,
        },
        {
            "kind": "csv",
            "path": tmp_path / "cmedqa_pairs.tsv",
            "name": "cmedqa",
            "where": {"label": "1"},
            "header": ["label", "question", "answer"],
            "max_answers": 3,
            "max_dropped_ratio": 1,
        },
        {
            "kind": "labelled",
            "path": tmp_path / "train.json",
            "evaluation_path": medical / "intent" / "kuake_qic_dev.json",
            "task": "intent",
            "form": "“{text}”的意图是什么？",
            "max_dropped_ratio": 1,
        },
    )
    card = json.loads((tmp_path / "corpus" / "card.json").read_text(encoding="utf-8"))
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert card["sources"]["toyhom"]["encoding"] == {
        "toyhom_internal_medicine.gb18030.csv": "gb18030"
    }
    assert counts["dropped"]["filtered"] > 100 and counts["dropped"]["too_many_answers"] > 3
    assert counts["questions"] == {"intent": 986}
