"""Files of labels: one text or several a row, names for labels, and evaluation kept apart."""

import csv
import json

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from limbeck.contracts.errors import DataError
from tests.support.source_reading import join_lines, read_source


def read(**fields):
    found = read_source("labelled", **fields)
    return found.records, found.drops, found.notes, found.questions


def write_lines(path, *rows):
    path.write_text(join_lines(rows), encoding="utf-8")
    return path


def test_keeps_training_and_evaluation_apart(tmp_path):
    train = [
        {"query": "头痛吃什么药", "label": "治疗"},
        {"query": "什么是流感", "label": "定义"},
        {"query": "挂号", "label": None},
    ]
    (tmp_path / "train.json").write_text(json.dumps(train, ensure_ascii=False))
    write_lines(tmp_path / "dev.json", {"query": "头痛 吃什么药？", "label": "治疗"})
    fields = {
        "path": tmp_path / "train.json",
        "evaluation_path": tmp_path / "dev.json",
        "task": "intent",
    }
    records, drops, _, questions = read(**fields, form="意图是什么：{text}")
    assert [(r.question, r.answer) for r in records] == [("意图是什么：什么是流感", "定义")]
    assert sorted(drop.reason.key for drop in drops) == ["in_evaluation", "missing_field"]
    assert questions[0].options == ("定义", "治疗") and questions[0].answers == ("治疗",)
    with pytest.raises(ValidationError, match="form"):
        read(**fields, form="没有槽位")


def test_labels_keep_their_signs_and_points(tmp_path):
    labels = ["+1", "-1", " 0 ", "3.5mg", "35mg", "#2", "C_1"]
    for name in ("train", "dev"):
        rows = [{"query": f"{name}中的第{label}句", "label": label} for label in labels]
        write_lines(tmp_path / f"{name}.json", *rows)
    fields = {"path": tmp_path / "train.json", "evaluation_path": tmp_path / "dev.json"}
    records, _, _, questions = read(**fields, task="mood", form="评分：{text}")
    kept = [label.strip() for label in labels]
    assert [record.answer for record in records] == kept
    assert [question.answers for question in questions] == [(label,) for label in kept]
    assert questions[0].options == tuple(sorted(kept))


def test_texts_stay_as_they_are_unless_asked(tmp_path):
    text = "  if x == -2.5: # ５"
    write_lines(tmp_path / "train.jsonl", {"query": text, "label": "代码"})
    write_lines(tmp_path / "dev.jsonl", {"query": "y", "label": "代码"})
    fields = {
        "path": tmp_path / "train.jsonl",
        "evaluation_path": tmp_path / "dev.jsonl",
        "task": "intent",
        "form": "{text}",
    }
    ((record,), *_) = read(**fields)
    assert (record.question, record.answer) == (text, "代码")
    ((record,), *_) = read(**fields, normalization="zh")
    assert record.question == "if x == -2.5: 5"


LABELLED = [("头痛吃什么药", "1"), ("什么是流感，怎么传播", "2"), ("挂号，排队", "2")]


def write_labelled(path, rows, *, encoding="utf-8", header=True):
    """The same texts and labels in the format that a file's name says."""
    names = [("query", "label")] if header else []
    sign = {".csv": ",", ".tsv": "\t", ".txt": ";"}.get(path.suffix)
    if path.suffix == ".parquet":
        columns = {"query": [row[0] for row in rows], "label": [int(row[1]) for row in rows]}
        parquet.write_table(pyarrow.table(columns), path)
    elif sign:
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=sign).writerows([*names, *rows])
    else:
        values = [dict(zip(("query", "label"), row, strict=True)) for row in rows]
        text = "\n".join(json.dumps(value, ensure_ascii=False) for value in values)
        path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
@pytest.mark.parametrize("end", ["jsonl", "json", "csv", "tsv", "txt", "parquet"])
def test_reads_every_format_of_rows(end, encoding, tmp_path):
    others = [("发烧多少度", "2"), ("挂号，排队", "2")]
    found = read_source(
        "labelled",
        path=write_labelled(tmp_path / f"train.{end}", LABELLED, encoding=encoding),
        evaluation_path=write_labelled(tmp_path / f"dev.{end}", others, encoding=encoding),
        task="intent",
        form="{text}",
    )
    assert [(r.question, r.answer) for r in found.records] == LABELLED[:2]
    assert [drop.reason.key for drop in found.drops] == ["in_evaluation"]
    assert {q.question: q.answers for q in found.questions} == {
        "发烧多少度": ("2",),
        "挂号，排队": ("2",),
    }
    assert found.questions[0].options == ("1", "2")


def test_tables_without_names_and_with_others(tmp_path):
    paths = [write_labelled(tmp_path / name, LABELLED, header=False) for name in ("a.tsv", "b.tsv")]
    fields = {"path": paths[0], "task": "intent", "form": "{text}"}
    fields["evaluation_path"] = write_labelled(tmp_path / "b.tsv", [("咳嗽", "3")], header=False)
    records, *_ = read(**fields, header=("query", "label"))
    assert [(r.question, r.answer) for r in records] == LABELLED
    with pytest.raises(
        DataError, match=r"b\.tsv.*no row with the texts 'query' and 'label'; found"
    ):
        read(**fields)
    named = write_labelled(tmp_path / "c.csv", LABELLED)
    with pytest.raises(DataError, match=r"did you mean 'query'\? set text_column and label_column"):
        read(**fields | {"evaluation_path": named}, text_column="querry")
    own = write_labelled(tmp_path / "d.parquet", LABELLED)
    with pytest.raises(DataError, match=r"d\.parquet.*`encoding`"):
        read(**fields | {"evaluation_path": own}, encoding="cp1252")


def test_text_in_json_keeps_its_name(tmp_path):
    path = write_lines(tmp_path / "a.txt", {"query": "咳嗽", "label": "b"})
    other = write_lines(tmp_path / "b.txt", {"query": "头痛", "label": "a"})
    fields = {"path": path, "evaluation_path": other, "task": "intent", "form": "{text}"}
    ((record,), *_) = read(**fields)
    assert (record.question, record.answer) == ("咳嗽", "b")


PAIR = {"query1": "头痛吃什么药", "query2": "头疼用药", "label": 1}
RELATED = {"task": "relevance", "form": "相关吗：{query1}｜{query2}"}


def read_pairs(folder, rows, *others, **fields):
    """What rows of training beside others of evaluation give."""
    paths = {"path": write_lines(folder / "train.json", *rows)}
    paths["evaluation_path"] = write_lines(folder / "dev.json", *others)
    return read_source("labelled", **paths, **RELATED | fields)


def test_a_question_may_hold_several_texts(tmp_path):
    rows = [
        PAIR,
        {"query1": "体温３８度", "query2": "{query1}和{text}", "label": "0"},
        {"query1": "头疼用药", "query2": "咳嗽", "label": 0},
        {"query1": "咳嗽", "query2": "头疼用药", "label": 0},
        {"query1": "发热", "query2": " ", "label": 0},
        {"query1": "发热", "query2": "<br>", "label": 0},
    ]
    others = [
        {"query1": "头疼用药！", "query2": "头痛 吃什么药", "label": 1},
        {"query1": "头疼用药", "query2": "头痛吃什么药", "label": 1},
        {"query1": "头痛吃什么药", "query2": "甲", "label": 0},
    ]
    found = read_pairs(tmp_path, rows, *others, normalization="zh", form="{{{query2}}} {query1}？")
    assert [record.question for record in found.records] == [
        "{{query1}和{text}} 体温38度？",
        "{咳嗽} 头疼用药？",
        "{头疼用药} 咳嗽？",
    ]
    # Two texts in another order are one group and two questions.
    assert len({record.group for record in found.records}) == 2
    assert len(found.questions) == 2
    assert found.reasons == [
        ("2", "evaluation_duplicate"),
        ("1", "in_evaluation"),
        ("5", "missing_field"),
        ("6", "nothing_left"),
    ]


def test_labels_that_contradict_each_other(tmp_path, caplog):
    """Most rows decide; where none has most, nothing is asked."""
    rows = [
        PAIR | {"query1": text, "label": int(label)}
        for text, label in zip("甲甲甲乙乙", "01101", strict=True)
    ]
    found = read_pairs(tmp_path, [PAIR], *rows, PAIR | {"query1": "丙"})
    assert [(q.id, q.answers) for q in found.questions] == [
        ("train:dev.json:2", ("1",)),
        ("train:dev.json:6", ("1",)),
    ]
    assert sorted(found.reasons) == [
        ("1", "evaluation_contradicted_label"),
        ("3", "evaluation_duplicate"),
        ("4", "evaluation_contradicted_label"),
        ("5", "evaluation_contradicted_label"),
    ]
    assert "3 rows of dev.json contradict" in caplog.text
    assert "dev.json:1: '0', and '1' at dev.json:2: 甲" in caplog.text


def test_texts_that_only_the_form_joins_alike_are_not_trained_on(tmp_path):
    """The leak check of the stage compares whole questions, and would stop at such a row."""
    rows = [PAIR, {"query1": "胃", "query2": "痛药", "label": 0}]
    found = read_pairs(tmp_path, rows, {"query1": "胃痛", "query2": "药", "label": 0})
    assert [reason for _, reason in found.reasons] == ["in_evaluation"]


def test_columns_of_texts_are_looked_for_and_the_others_named(tmp_path):
    found = read_pairs(tmp_path, [PAIR | {"id": 3}], PAIR | {"query1": "甲"}, form="{query1}")
    assert found.notes["columns_not_read"] == {"train (train.json)": ["query2", "id"]}
    wanted = r"'query1' and 'query3' and 'label'.*did you mean 'query2'\? set `form` and label"
    with pytest.raises(DataError, match=wanted):
        read_pairs(tmp_path, [PAIR], PAIR, form="{query1}{query3}")
    with pytest.raises(DataError, match=r"dev\.json:1: wrong_type \('label' is bool"):
        read_pairs(tmp_path, [PAIR], PAIR | {"label": True})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "相关吗"}, "no slot"),
        ({"form": "{{query1}}"}, "no slot"),
        ({"form": "{query1"}, "'{' at character 1"),
        ({"form": "{query1}{}"}, "'{' at character 9"),
        ({"form": "{query1}{label}"}, "hold its answer"),
        ({"form": "{text}", "text_column": "label"}, "hold its answer"),
        ({"text_column": "query1"}, "fills the slot {text}"),
        ({"labels": {"0": "是", 1: "是 "}}, "'0' and '1' are both called '是'"),
        ({"labels": {"0": "是", 0: "否"}}, "'0' has two names"),
        ({"labels": {True: "是"}}, "put them in quotes"),
        ({"labels": {"0": " "}}, "at least 1 character"),
        ({"labels": ["是"]}, "dictionary"),
    ],
)
def test_forms_and_names_that_cannot_be_meant_are_refused(tmp_path, fields, message):
    with pytest.raises(ValidationError, match=message):
        read_pairs(tmp_path, [PAIR], PAIR, **fields)


@pytest.mark.parametrize("end", ["json", "csv", "parquet"])
def test_labels_get_names(tmp_path, caplog, end):
    rows = [("甲", "0"), ("乙", "1"), ("丙", "3")]
    found = read_source(
        "labelled",
        path=write_labelled(tmp_path / f"a.{end}", rows, encoding="utf-8-sig"),
        evaluation_path=write_labelled(tmp_path / f"b.{end}", [("丁", "1")]),
        task="relevance",
        form="{text}",
        labels={0: "无关", " 1 ": "相关", "7": "不明"},
    )
    assert found.pairs == [("甲", "无关"), ("乙", "相关")]
    assert found.questions[0].answers == ("相关",)
    assert found.questions[0].options == ("无关", "相关")
    assert [drop.detail for drop in found.drops] == ["'3' has no name in `labels`: '0', '1', '7'"]
    assert found.notes["labels_without_rows"] == {"a": ["7"]} and "'7'" in caplog.text


def test_a_file_of_other_labels_says_which(tmp_path):
    with pytest.raises(DataError, match=r"unnamed_label \('1' has no name in `labels`: 'a'\)"):
        read_pairs(tmp_path, [PAIR], PAIR, labels={"a": "相关"})


def test_columns_inside_objects_and_lists(tmp_path):
    rows = [{"data": {"text": f"t{n}", "x": 1}, "label": ["yes"], "id": n} for n in range(2)]
    train = write_lines(tmp_path / "train.jsonl", rows[0])
    dev = write_lines(tmp_path / "dev.jsonl", rows[1])
    columns = {"form": "{data.text}?", "label_column": "label.0", "task": "t"}
    records, _, notes, questions = read(path=train, evaluation_path=dev, **columns)
    assert [(r.question, r.answer) for r in records] == [("t0?", "yes")]
    assert questions[0].answers == ("yes",)
    assert set(map(tuple, notes["columns_not_read"].values())) == {("id",)}
