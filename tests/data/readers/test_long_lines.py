"""A file that is one endless line: a named error, and never more of it in memory than allowed."""

import json
import tracemalloc

import pytest

from limbeck.contracts.errors import DataError
from limbeck.data.readers import encoding, json_text, text_files
from tests.support.source_reading import read_source

MOST_CHARS = 1 << 15
FILE_CHARS = 1 << 22
# A part of a line, a chunk of the file, and a few copies of what the bound allows.
MOST_BYTES = 24 * MOST_CHARS


@pytest.fixture
def bounded(monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_CHARS", MOST_CHARS)
    monkeypatch.setattr(text_files, "PART_CHARS", MOST_CHARS // 8)
    monkeypatch.setattr(json_text, "CHUNK_CHARS", MOST_CHARS // 8)
    monkeypatch.setattr(encoding, "CHUNK_BYTES", MOST_CHARS // 8)
    monkeypatch.setattr(encoding, "SAMPLE_BYTES", MOST_CHARS // 8)


def write(path, start, char, end=""):
    """A file of one line, most of which is one character."""
    with path.open("w", encoding="utf-8") as file:
        file.write(start)
        for _ in range(64):
            file.write(char * (FILE_CHARS // 64))
        file.write(end)
    return path


def peak_bytes(use):
    tracemalloc.start()
    try:
        use()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("char", ["x", "字"])
@pytest.mark.parametrize(
    ("kind", "name", "start", "message"),
    [
        ("jsonl", "a.jsonl", '{"question": "Q", "answer": "', "line_too_long"),
        ("jsonl", "a.json", '[{"question": "Q", "answer": "', "longer than 32,768 characters"),
        ("csv", "a.csv", "question,answer\nQ,", "line_too_long"),
        ("csv", "a.tsv", "question\tanswer\nQ\t", "line_too_long"),
        ("csv", "b.csv", "question,answer,", "is no table"),
        ("csv", "c.csv", 'question,answer\nQ,"', "line_too_long"),
    ],
)
def test_an_endless_line_is_named_in_little_memory(
    kind, name, start, message, char, bounded, tmp_path
):
    path = write(tmp_path / name, start, char)

    def use():
        with pytest.raises(DataError, match=rf"{path.name}.*{message}"):
            read_source(kind, path=path)

    use()  # what is loaded once is no part of it
    assert peak_bytes(use) < MOST_BYTES


def test_an_endless_line_among_others_costs_itself(bounded, tmp_path):
    good = json.dumps({"question": "Q", "answer": "A"})
    path = write(tmp_path / "a.jsonl", good + "\n", "字", "\n" + good.replace("Q", "R") + "\n")
    found = read_source("jsonl", path=path)
    assert [record.place for record in found.records] == ["a.jsonl:1", "a.jsonl:3"]
    assert [(drop.place, drop.reason.key) for drop in found.drops] == [
        ("a.jsonl:2", "line_too_long")
    ]


def test_an_array_in_one_long_line_is_read(bounded, tmp_path):
    rows = [{"question": f"Q{n}", "answer": "A" * 100} for n in range(2000)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    assert path.stat().st_size > 4 * MOST_CHARS
    assert len(read_source("jsonl", path=path).records) == len(rows)


@pytest.mark.parametrize(
    "length", [MOST_CHARS - 1, MOST_CHARS, MOST_CHARS // 8, 3 * MOST_CHARS // 8]
)
def test_lines_up_to_the_bound_are_whole(length, bounded, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * length + b"\r\nlast")
    lines = [
        (line.number, len(line.text), line.is_cut)
        for line in text_files.bounded_lines(path, encoding="utf-8")
    ]
    is_cut = length + 1 > MOST_CHARS
    assert lines == [(1, text_files.SHOWN_CHARS if is_cut else length, is_cut), (2, 4, False)]
