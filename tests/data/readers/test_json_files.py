"""JSON files: what Python's parser would pass over is dropped by name; no file is held whole."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from limbeck.contracts.errors import DataError
from limbeck.data.readers import json_text, text_files
from limbeck.data.readers.jsonl import Config
from limbeck.drafting.findings import read_findings
from tests.support.source_reading import join_lines, read_rows, read_source

PLAIN = {"question": "how much", "answer": "400 µg"}
LOST = "\ufffd"


def damaged_rows():
    """One a place in which a lost character can stand."""
    yield {"question": "how much", "answer": f"400 {LOST}g"}
    yield {"question": f"how {LOST}", "answer": "400 g"}
    yield PLAIN | {"note": {"deep": [{"er": "x"}, {"er": LOST}]}}
    yield {"instruction": "q", "output": "a", "history": [["a", f"b{LOST}"]]}
    yield {"messages": [{"role": "user", "content": LOST}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize("row", list(damaged_rows()))
@pytest.mark.parametrize("form", ["lines", "escaped lines", "array", "parquet"])
def test_a_lost_character_drops_its_row_in_every_form(tmp_path, row, form):
    path = tmp_path / "a.json"
    kind = "jsonl"
    if form == "lines":
        path.write_text(join_lines([PLAIN, row]), encoding="utf-8")
    elif form == "escaped lines":
        path.write_text(json.dumps(PLAIN) + "\n" + json.dumps(row), encoding="utf-8")
    elif form == "array":
        path.write_text(json.dumps([PLAIN, row], ensure_ascii=False), encoding="utf-8")
    else:
        kind = "parquet"
        columns = dict.fromkeys((*PLAIN, *row))
        rows = [{name: each.get(name) for name in columns} for each in (PLAIN, row)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = read_source(kind, path=path)
    assert found.pairs == [("how much", "400 µg")]
    assert [reason for _, reason in found.reasons] == ["undecodable"]


def test_damaged_bytes_in_an_array_and_a_data_set_and_half_a_pair(tmp_path):
    path = tmp_path / "a.json"
    rows = [PLAIN] * 9 + [{"question": "q", "answer": "25 µg"}]
    content = json.dumps(rows, ensure_ascii=False).encode()
    path.write_bytes(content.replace("25 µ".encode(), b"25 \xb5"))
    found = read_source("jsonl", path=path)
    assert len(found.records) == 9 and found.reasons == [("item 10", "undecodable")]
    found = read_rows(tmp_path, PLAIN, '{"question": "q", "answer": "\\ud800"}')
    assert found.reasons == [("2", "undecodable")]
    found = read_rows(tmp_path, PLAIN, PLAIN | {f"na{LOST}me": "x"})
    assert found.reasons == [("2", "undecodable")]

    from datasets import Dataset

    Dataset.from_list([PLAIN, PLAIN | {"answer": LOST}]).save_to_disk(tmp_path / "saved")
    found = read_source("hub", dataset=str(tmp_path / "saved"))
    assert found.reasons == [("row 2", "undecodable")]


def test_a_file_of_lost_rows_only_is_counted(tmp_path):
    found = read_rows(tmp_path, PLAIN | {"answer": LOST})
    assert not found.records and found.reasons == [("1", "undecodable")]


def test_lost_characters_in_labels(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"query": "a", "label": "x"}, {"query": f"b{LOST}", "label": "y"}]))
    fields = {"evaluation_path": path, "task": "intent", "form": "{text}"}
    found = read_source("labelled", path=path, **fields)
    assert "undecodable" in [reason for _, reason in found.reasons]
    assert [question.answers for question in found.questions] == [("x",)]


def test_numbers_stay_as_written(tmp_path):
    found = read_rows(
        tmp_path, '{"question": 2.50, "answer": 007}', '{"question": 2.50, "answer": 1e-3}'
    )
    assert found.pairs == [("2.50", "1e-3")]
    assert found.reasons == [("1", "broken_json")]
    path = tmp_path / "b.json"
    path.write_text('[{"question": 12345678901234567890, "answer": 0.10, "confidence": 0.50}]')
    found = read_source("jsonl", path=path)
    assert found.pairs == [("12345678901234567890", "0.10")]
    assert found.records[0].confidence == 0.5


def test_a_comma_behind_an_object_is_no_part_of_it(tmp_path):
    line = json.dumps(PLAIN)
    found = read_rows(tmp_path, f"{line},", f"{line} , ", f"{line},,", line)
    assert len(found.records) == 3 and found.reasons == [("3", "broken_json")]


def test_the_files_of_a_folder_are_named_with_their_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(PLAIN)}\n" * 2)
    (tmp_path / "b.json").write_text(json.dumps([PLAIN]))
    source = Config.model_validate({"kind": "jsonl", "path": tmp_path})
    assert read_findings(source).notes["rows_by_file"] == {"a.jsonl": 2, "b.json": 1}


def test_what_is_no_number_is_no_text(tmp_path):
    found = read_rows(
        tmp_path,
        PLAIN,
        '{"question": "q", "answer": NaN}',
        '{"question": "q", "answer": Infinity}',
        '{"question": "q", "answer": "a", "confidence": -Infinity}',
        '{"question": "q", "answer": "a", "confidence": NaN}',
    )
    assert found.reasons == [("2", "missing_field"), ("3", "wrong_type"), ("4", "bad_confidence")]
    assert len(found.records) == 2


def test_a_key_that_stands_twice_loses_nothing_in_silence(tmp_path):
    twice = '{"question": "q", "answer": "a", "answer": "b"}'
    inner = '{"messages": [{"role": "user", "role": "assistant", "content": "x"}]}'
    found = read_rows(tmp_path, PLAIN, twice, inner)
    assert found.reasons == [("2", "duplicate_key"), ("3", "duplicate_key")]
    path = tmp_path / "b.json"
    path.write_text(f"[{json.dumps(PLAIN)}, {twice}, {json.dumps(PLAIN)}]")
    found = read_source("jsonl", path=path)
    assert len(found.records) == 2 and found.reasons == [("item 2", "duplicate_key")]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_arrays_are_read_item_by_item(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_text, "CHUNK_CHARS", chunk)
    rows = [{"question": f"q{number}", "answer": ']}"\\' * number + "a"} for number in range(40)]
    path = tmp_path / "a.json"
    path.write_text("\ufeff\n" + json.dumps([*rows, 12, "x"], indent=indent) + "\n")
    found = read_source("jsonl", path=path)
    assert found.pairs == [(row["question"], row["answer"]) for row in rows]
    assert found.reasons == [("item 41", "not_an_object"), ("item 42", "not_an_object")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"question": "q"},\n{"question" "a"}]', "line 3: Expecting ':'"),
        ('[{"question": "q", "answer": "a"}\n', "expected ',' or ']'"),
        ('[{"question": "q", "answer": "a"}] x', "something follows"),
        ('[{"question": "q", "answer": "a"},]', "Expecting value"),
        ("[" * 100_000, "nests too deep"),
        ('{"data": [{"question": "q", "answer": "a"}], "version": 1}', "'data' holds a list of 1"),
        (
            '{"question": {"0": "q", "1": "r"}, "answer": {"0": "a", "1": "b"}}',
            "object for each col",
        ),
        ('{\n "data": [\n  {"question": "q"}\n ]\n}', "'data' holds a list of 1 objects"),
        ('{\n "question": "q"\n}\n{\n "question": "r"\n}', "broken_json"),
        ('{"chat": [{"role": "user"}]}\n' * 2, "holds chats in 'chat'; rename it to `messages`"),
        ("{}\n", "an object without keys"),
        ("\ufeff\n\n", "holds no rows"),
    ],
)
def test_a_broken_file_shows_what_was_found(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json") as error:
        read_source("jsonl", path=path)
    assert message in str(error.value)


def test_one_object_over_several_lines_is_a_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PLAIN, indent=2))
    assert len(read_source("jsonl", path=path).records) == 1


def test_a_line_beyond_the_limit_is_dropped_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_CHARS", 200)
    found = read_rows(tmp_path, PLAIN, PLAIN | {"answer": "x" * 2000}, PLAIN)
    assert len(found.records) == 2 and found.reasons == [("2", "line_too_long")]
    assert len(found.drops[0].detail) < 300
    with pytest.raises(DataError, match="line_too_long"):
        read_rows(tmp_path, PLAIN | {"answer": "x" * 2000})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_marks_of_byte_order(tmp_path, end):
    path = tmp_path / "a.jsonl"
    text = end.join(["\ufeff" + json.dumps(PLAIN), "\ufeff" + json.dumps(PLAIN), ""])
    path.write_bytes(text.encode())
    assert len(read_source("jsonl", path=path).records) == 2


def test_wrong_columns_are_named_with_what_to_set(tmp_path):
    with pytest.raises(DataError) as error:
        read_rows(tmp_path, {"id": 1, "Query": "q", "response": "a"})
    assert "found 'id', 'Query', 'response'" in str(error.value)
    assert "columns: {question: [Query], answer: response}" in str(error.value)
    columns = {"question": ["Query"], "answer": "response"}
    found = read_rows(tmp_path, {"Query": "q", "response": "a"}, columns=columns)
    assert found.pairs == [("q", "a")]
    with pytest.raises(DataError, match="no column 'agree'; found 'question', 'answer'"):
        read_rows(tmp_path, PLAIN, columns={"confidence": "agree"})
    with pytest.raises(DataError, match="did you mean 'answer'"):
        read_rows(tmp_path, PLAIN, where={"anser": "x"})


def test_damaged_and_short_values_of_a_table(tmp_path):
    texts = pyarrow.array([b"400 \xc2\xb5g", b"25 \xb5g"], pyarrow.binary())
    columns = {
        "question": pyarrow.array(["how much", "and now"]),
        "answer": pyarrow.Array.from_buffers(pyarrow.string(), 2, texts.buffers()),
        "confidence": pyarrow.array([0.9, 0.8], pyarrow.float16()),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    found = read_source("parquet", path=tmp_path / "a.parquet")
    assert found.pairs == [("how much", "400 µg")] and found.records[0].confidence == 0.9
    assert found.reasons == [("row 2", "undecodable")]

    from datasets import Dataset, Features, Value

    features = Features({"question": Value("string"), "answer": Value("float32")})
    rows = {"question": ["q"], "answer": [0.9]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    assert read_source("hub", dataset=str(tmp_path / "saved")).pairs == [("q", "0.9")]


def test_two_columns_of_one_name_in_a_typed_table(tmp_path):
    names = ["question", "answer", "answer"]
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=names)
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns 'answer'"):
        read_source("parquet", path=tmp_path / "a.parquet")


def test_a_deep_value_is_no_fault(tmp_path):
    deep = "[" * 900 + "]" * 900
    found = read_rows(tmp_path, PLAIN, f'{{"question": "q", "answer": "a", "x": {deep}}}')
    assert len(found.records) == 2


def test_classes_of_a_data_set_are_their_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = read_source("hub", dataset=str(tmp_path / "saved"))
    assert found.pairs == [("a", "good"), ("b", "bad")] and len(found.drops) == 1
