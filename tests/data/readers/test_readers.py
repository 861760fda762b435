import csv
import json
import random

import pyarrow
import pytest
from pyarrow import parquet

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import UNSCORED
from limbeck.contracts.registry import READERS
from limbeck.data.readers.encoding import SAMPLE_BYTES, detect_encoding
from tests.support.source_reading import read_source

PLAIN = {"question": "头痛怎么办", "answer": "注意休息", "confidence": 0.95, "department": "心内科"}


def read(kind, pack, **fields):
    found = read_source(kind, **fields)
    return found.records, found.drops, found.notes, found.questions


def write_lines(path, *rows):
    path.write_text(
        "".join(
            (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
            for row in rows
        ),
        encoding="utf-8",
    )
    return path


def test_every_kind_is_a_config():
    for kind in READERS:
        assert resolve(READERS, kind, what="source").model_fields["kind"].default == kind


def test_jsonl_recognises_shapes(pack, tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        PLAIN,
        {
            "instruction": "胃痛",
            "input": "三天了",
            "output": "少吃辣",
            "history": [["你好", "您好"]],
        },
        {
            "conversations": [
                {"from": "system", "value": "你是医生"},
                {"from": "human", "value": "咳嗽"},
                {"from": "gpt", "value": "几天了"},
                {"from": "human", "value": "两天"},
                {"from": "gpt", "value": "多喝水"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "发热"},
                {"role": "assistant", "content": "量体温"},
            ]
        },
    )
    records, drops, notes, _ = read("jsonl", pack, path=path)
    assert not drops and notes["encoding"] == {"a.jsonl": "utf-8"}
    assert [(r.question, r.answer) for r in records if r.place == "a.jsonl:1"] == [
        ("头痛怎么办", "注意休息")
    ]
    assert records[0].specialty == "cardiology" and records[0].confidence == 0.95
    assert [r.question for r in records if r.place == "a.jsonl:2"] == ["你好", "胃痛 三天了"]
    last = [r for r in records if r.place == "a.jsonl:3"][-1]
    assert last.history == ("咳嗽", "几天了") and last.answer == "多喝水"
    assert last.confidence == UNSCORED
    assert len({r.id for r in records}) == len(records)


def test_broken_lines_are_counted_with_their_place(pack, tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        PLAIN,
        '{"question": "半',
        "[1, 2]",
        "",
        {"question": "只有问题"},
        PLAIN | {"confidence": "很高"},
        PLAIN | {"answer": ["不是文本"]},
        {"conversations": "不是列表"},
        {"conversations": [{"from": "human", "value": "没有回答"}]},
        {"instruction": "问", "output": "答", "history": 3},
        PLAIN | {"confidence": 96},
    )
    records, drops, _, _ = read("jsonl", pack, path=path)
    assert {(drop.place, drop.reason.key) for drop in drops} == {
        ("a.jsonl:2", "broken_json"),
        ("a.jsonl:3", "not_an_object"),
        ("a.jsonl:5", "missing_field"),
        ("a.jsonl:6", "bad_confidence"),
        ("a.jsonl:7", "wrong_type"),
        ("a.jsonl:8", "broken_conversation"),
        ("a.jsonl:9", "broken_conversation"),
        ("a.jsonl:10", "broken_conversation"),
    }
    assert sorted(record.confidence for record in records) == [0.95, 0.96]


def test_jsonl_reads_folders_and_arrays(pack, tmp_path):
    write_lines(tmp_path / "a.jsonl", PLAIN)
    (tmp_path / "b.json").write_text("\n" + json.dumps([PLAIN, 3], indent=1, ensure_ascii=False))
    records, drops, _, _ = read("jsonl", pack, path=tmp_path)
    assert len(records) == 2 and [drop.reason.key for drop in drops] == ["not_an_object"]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b"not json\n", b'{"a": 1}\n', b"[1, 2", b"\xff\xfe", b"[]"]
)
def test_a_file_that_is_nothing_is_an_error_with_its_name(pack, tmp_path, content):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        read("jsonl", pack, path=path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_missing_file_is_an_error(pack, tmp_path, kind):
    with pytest.raises(DataError, match="gone"):
        read(kind, pack, path=tmp_path / "gone")


def write_table(path, rows, *, encoding, delimiter=","):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize("shift", range(4))
def test_gb18030_is_right_wherever_the_sample_is_cut(pack, tmp_path, shift):
    chooser = random.Random(shift)
    words = ["糖尿病", "怎么办", "注意饮食", "𠮷人", "2型", "复查", "㐀", "，"]
    rows = [["question", "answer"]]
    rows += [
        ["x" * shift + "".join(chooser.choices(words, k=9)), "".join(chooser.choices(words, k=40))]
        for _ in range(900)
    ]
    path = write_table(tmp_path / "a.csv", rows, encoding="gb18030")
    assert path.stat().st_size > SAMPLE_BYTES
    records, drops, notes, _ = read("csv", pack, path=path)
    assert notes["encoding"] == {"a.csv": "gb18030"} and not drops
    assert sorted((r.question, r.answer) for r in records) == sorted(map(tuple, rows[1:]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "big5"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_text("糖尿病患者平時應該注意飲食，定期檢查血糖。\n" * 50, encoding=encoding)
    assert detect_encoding(path).name == encoding


def test_a_few_damaged_bytes_cost_a_line_and_not_the_file(pack, tmp_path):
    lines = [
        json.dumps(PLAIN | {"question": f"头痛{i}怎么办呢"}, ensure_ascii=False).encode()
        for i in range(60)
    ]
    lines[7] = lines[7].replace("怎".encode(), b"\xe6\x80")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    records, drops, notes, _ = read("jsonl", pack, path=path)
    assert notes["encoding"] == {"a.jsonl": "utf-8"} and len(records) == 59
    assert [(drop.reason.key, drop.place) for drop in drops] == [("undecodable", "a.jsonl:8")]


def test_csv_maps_filters_and_counts(pack, tmp_path):
    rows = [
        ["1", "头痛", "多休息"],
        ["0", "头痛", "不相干"],
        ["1", "少一列"],
        ["1", "胃痛", "少\n吃辣"],
    ]
    rows += [["1", "可疑", f"答{index}"] for index in range(5)]
    path = write_table(tmp_path / "a.tsv", rows, encoding="utf-8", delimiter="\t")
    records, drops, _, _ = read(
        "csv",
        pack,
        path=path,
        header=["label", "question", "answer"],
        where={"label": "1"},
        max_answers=3,
    )
    assert {(r.question, r.answer) for r in records} == {("头痛", "多休息"), ("胃痛", "少\n吃辣")}
    reasons = [drop.reason.key for drop in drops]
    assert sorted(set(reasons)) == ["broken_row", "filtered", "too_many_answers"]
    assert reasons.count("too_many_answers") == 5
    with pytest.raises(DataError, match="no column 'question'"):
        read("csv", pack, path=path)


def test_an_open_quote_loses_lines_but_counts_each(pack, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n头痛,休息\n"没有结束,一\n二,三\n四,五\n', encoding="utf-8")
    records, drops, _, _ = read("csv", pack, path=path)
    assert len(records) == 1
    assert [drop.place for drop in drops] == ["a.csv:3", "a.csv:4", "a.csv:5"]


def test_parquet_and_hub(pack, tmp_path):
    rows = [PLAIN, {**PLAIN, "question": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    records, drops, _, _ = read("parquet", pack, path=tmp_path / "a.parquet")
    assert [r.question for r in records] == ["头痛怎么办"] and len(drops) == 1
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:200])
    with pytest.raises(DataError, match="Parquet"):
        read("parquet", pack, path=tmp_path / "bad.parquet")

    from datasets import Dataset, DatasetDict

    alpaca = Dataset.from_list([{"instruction": "问", "input": "", "output": "答"}])
    DatasetDict({"train": alpaca}).save_to_disk(tmp_path / "saved")
    records, _, _, _ = read("hub", pack, dataset=str(tmp_path / "saved"))
    assert [(r.question, r.answer) for r in records] == [("问", "答")]
    with pytest.raises(DataError, match="no split 'dev'"):
        read("hub", pack, dataset=str(tmp_path / "saved"), split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded"):
        read("hub", pack, dataset=str(tmp_path / "empty"))


def test_triples(pack, tmp_path):
    folder = tmp_path / "relation"
    folder.mkdir()
    (folder / "症状.txt").write_text(
        "\ufeff疾病 高血压 症状 疾病症状 头晕\r\n疾病 高血压 症状 疾病症状 头痛\r\n"
        "疾病 高血压 症状 疾病症状 头晕\r\n"
        "疾病 高血压 症状 疾病症状 高血压\r\n疾病 高血压 症状 疾病症状 饮食营养...\r\n坏行\r\n"
        "疾病 高血压 症状 疾病症状 主要症状：\r\n疾病 高血压 症状 疾病症状 CD4 ＋T淋巴细胞减少\r\n"
        "疾病 高血压 症状 疾病症状 " + "很长" * 20 + "\r\n",
        encoding="utf-8",
    )
    (folder / "科室.txt").write_text("疾病 高血压 科室 科室 内科\n疾病 高血压 科室 科室 心内科\n")
    records, drops, notes, questions = read(
        "triples",
        pack,
        path=folder,
        normalization="zh",
        facts={"forms_per_fact": 3, "statements_per_fact": 0},
    )
    assert [(drop.place, drop.reason.key) for drop in drops] == [
        ("症状.txt:3", "duplicate_triple"),
        ("症状.txt:4", "tail_is_head"),
        ("症状.txt:5", "cut_text"),
        ("症状.txt:6", "broken_line"),
        ("症状.txt:7", "heading"),
        ("症状.txt:9", "sentence"),
    ]
    answers = {(r.group.split("|")[1], r.answer) for r in records}
    assert ("symptoms", "头晕、头痛、CD4 +T淋巴细胞减少") in answers
    assert ("specialty", "心内科") in answers and len(answers) == 2
    assert {r.specialty for r in records} == {"cardiology"}
    assert notes["facts"] == 2 and {q.task for q in questions} == {"recall"}
    with pytest.raises(DataError, match="are not the pack's"):
        read("triples", pack, path=folder, relations=["症状"])
    (folder / "x.txt").write_text("没有空格\n")
    with pytest.raises(DataError, match=r"x\.txt"):
        read("triples", pack, path=folder)
