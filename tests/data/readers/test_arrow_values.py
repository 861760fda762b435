"""What Parquet and saved data sets hold comes out as it was meant: names, digits, dates."""

import datetime
import json
from decimal import Decimal

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from limbeck.contracts.errors import DataError
from tests.support.source_reading import read_source


def read(path, values, *, kind=None, **fields):
    """The answers of a Parquet file that holds these values."""
    questions = [f"q{place}" for place in range(len(values))]
    columns = {"question": questions, "answer": pyarrow.array(values, kind)}
    parquet.write_table(pyarrow.table(columns), path / "a.parquet")
    found = read_source("parquet", path=path / "a.parquet", **fields)
    return [record.answer for record in found.records], found


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pyarrow.decimal128(9, 2), Decimal("-2.50"), "-2.50"),
        (pyarrow.date32(), datetime.date(2024, 2, 29), "2024-02-29"),
        (pyarrow.timestamp("s"), datetime.datetime(2024, 2, 29), "2024-02-29T00:00:00"),
        (pyarrow.timestamp("ns"), 1234567891234567891, "2009-02-13T23:31:31.234567891"),
        (
            pyarrow.timestamp("s", tz="+02:00"),
            datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
            "2024-01-01T02:00:00+02:00",
        ),
        (pyarrow.time32("ms"), datetime.time(8, 5, 0, 500000), "08:05:00.500000"),
        (pyarrow.time64("ns"), 3_661_000_001_000, "01:01:01.000001"),
        (pyarrow.duration("s"), 93_600, "P1DT2H"),
        (pyarrow.duration("ms"), -1_500, "-PT1.5S"),
        (pyarrow.duration("s"), 0, "PT0S"),
        (pyarrow.binary(), "größer".encode(), "größer"),
    ],
)
def test_values_of_other_types_are_texts(tmp_path, kind, value, text):
    assert read(tmp_path, [value, None], kind=kind)[0] == [text]


def test_values_inside_lists_and_categories(tmp_path):
    dates = [[datetime.date(2024, 1, 2)], []]
    assert read(tmp_path, dates, answers="list")[0] == ['["2024-01-02"]', "[]"]
    category = pyarrow.array([Decimal("1.10")]).dictionary_encode()
    assert read(tmp_path, category)[0] == ["1.10"]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (pyarrow.binary(), b"\x89PNG\0", "'answer' is bytes, expected text"),
        (pyarrow.binary(), b"\0\1", "'answer' is bytes, expected text"),
        (pyarrow.date32(), 10**7, "after row 0: date value out of range"),
        (pyarrow.time64("ns"), 1, "would lose data"),
    ],
)
def test_values_that_are_no_text_are_refused(tmp_path, kind, value, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, [value], kind=kind)


FEATURES = datasets.Features(
    text=datasets.Value("string"),
    label=datasets.ClassLabel(names=["neg", "pos"]),
    tags=datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
)
ROWS = [
    {"text": "bad", "label": 0, "tags": [0]},
    {"text": "good", "label": 1, "tags": [1, 0]},
    {"text": "?", "label": -1, "tags": []},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that `save_to_disk` wrote, and the same rows in Parquet."""
    folder = tmp_path_factory.mktemp("saved")
    data = datasets.Dataset.from_list(ROWS, features=FEATURES)
    data.save_to_disk(folder / "saved")
    parquet.write_table(data.data.table, folder / "a.parquet")
    return folder


@pytest.mark.parametrize("kind", ["parquet", "hub"])
def test_labels_have_their_stored_names(saved, kind):
    place = {"dataset": str(saved / "saved")} if kind == "hub" else {"path": saved / "a.parquet"}
    found = read_source(kind, **place)
    assert found.pairs == [("bad", "neg"), ("good", "pos")]
    assert found.reasons == [("row 3", "missing_field")]
    assert found.notes["label_names"] == {"label": ["neg", "pos"], "tags": ["O", "B-PER"]}
    tags = read_source(
        kind, **place, columns={"question": ["text"], "answer": "tags"}, answers="list"
    )
    assert [record.answer for record in tags.records] == ['["O"]', '["B-PER", "O"]', "[]"]


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_a_source_of_labels_takes_stored_names(saved, name):
    (saved / "b.jsonl").write_text(json.dumps({"text": "fine", "label": "pos"}))
    found = read_source(
        "labelled",
        path=saved / name,
        evaluation_path=saved / "b.jsonl",
        task="mood",
        form="{text}",
        text_column="text",
    )
    assert found.pairs == [("bad", "neg"), ("good", "pos")]
    assert found.questions[0].options == ("neg", "pos")


@pytest.mark.parametrize("labels", [{"0": "bad", "1": "fine"}, {"neg": "bad", "pos": "fine"}])
def test_stored_labels_are_named_by_number_or_by_name(saved, labels):
    place = saved / "a.parquet"
    fields = {"task": "mood", "form": "{text}!", "text_column": "text", "labels": labels}
    found = read_source("labelled", path=saved / "saved", evaluation_path=place, **fields)
    assert [q.answers for q in found.questions] == [("bad",), ("fine",)]
    assert "labels_without_rows" not in found.notes
    assert {reason for _, reason in found.reasons} == {
        "in_evaluation",
        "missing_field",
        "evaluation_missing_field",
    }


def test_splits_that_are_not_read_are_named(tmp_path):
    data = datasets.Dataset.from_list(ROWS, features=FEATURES)
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "both")
    found = read_source("hub", dataset=str(tmp_path / "both"), name="both")
    assert len(found.records) == 2 and found.notes["other_splits"] == {"both": {"test": 1}}
    fields = {"task": "mood", "form": "{text}", "text_column": "text"}
    place = tmp_path / "both"
    with pytest.raises(DataError, match="holds the splits 'train', 'test'; name the folder of one"):
        read_source("labelled", path=place, evaluation_path=place / "test", **fields)
    found = read_source("labelled", path=place / "train", evaluation_path=place / "test", **fields)
    assert found.pairs == [("good", "pos")] and found.questions[0].answers == ("neg",)


def test_a_label_beyond_the_names_is_refused(tmp_path):
    stored = {"info": {"features": {"answer": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"question": ["q"], "answer": [2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(stored)})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds the label 2, and its features name 0 to 1 alone"):
        read_source("parquet", path=tmp_path / "a.parquet")
