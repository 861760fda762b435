"""Tables: quotation marks, separators, line ends and lengths never merge or move a field."""

import csv
import io

import pytest

from limbeck.contracts.errors import DataError
from limbeck.data.readers import text_files
from tests.support.source_reading import read_source


@pytest.fixture
def read_table(tmp_path):
    def read(text, *, name="a.csv", **fields):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_source("csv", path=path, **fields)

    return read


def written(rows, **settings):
    file = io.StringIO()
    csv.writer(file, **settings).writerows([("question", "answer"), *rows])
    return file.getvalue()


def test_a_mark_at_a_tsv_fields_start_is_text(read_table):
    lines = ["绞痛挂哪科\t挂急诊", '"牙痛挂哪科\t挂口腔科', "耳鸣挂哪科\t挂耳鼻喉科"]
    lines += ['"落枕"挂哪科\t挂骨科', '"腰痛"\t挂骨科', '皮疹\t"挂皮肤科']
    found = read_table("question\tanswer\n" + "\n".join(lines) + "\n", name="a.tsv")
    assert found.pairs == [tuple(line.split("\t")) for line in lines] and not found.drops


def test_marks_that_balance_by_chance_join_no_tsv_rows(read_table):
    text = 'question\tanswer\n"a\tb\nc"\td\ne\tf\n'
    found = read_table(text, name="a.tsv")
    assert found.pairs == [('"a', "b"), ('c"', "d"), ("e", "f")]


ROWS = [('say "hi"', "a,b\tc;d"), ("two\nlines", "x"), ("plain", ' "q" '), ('5" pipe', "a\r\nb")]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("separator", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv")])
def test_what_a_writer_quotes_comes_back(read_table, quoting, end, separator, name):
    text = written(ROWS, delimiter=separator, quoting=quoting, lineterminator=end)
    found = read_table(text, name=name)
    assert found.pairs == ROWS and not found.drops
    assert found.notes["rows_of_several_lines"] == {name: 2}


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(("separator", "name"), [(",", "a.csv"), ("\t", "a.tsv")])
@pytest.mark.parametrize("other", ['say "hi"', "plain"])
def test_separators_behind_line_ends_come_back(read_table, quoting, separator, name, other):
    rows = [(f"q{n}", f"a\nx{separator}y" if n % 2 else other) for n in range(8)]
    found = read_table(written(rows, delimiter=separator, quoting=quoting), name=name)
    assert found.pairs == rows and not found.drops


def test_a_tsv_that_quotes_every_field_is_read_without_the_marks(read_table):
    text = written([("a", "b"), ("c", "d")], delimiter="\t", quoting=csv.QUOTE_ALL)
    assert read_table(text, name="a.tsv").pairs == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    "lines",
    [
        ['"open,b', "c,d", '"落枕"e,f'],
        ['a,"open', "c,d", '"e",f'],
        ['"open,b', 'c,"d, e"', "g,h"],
        ['"open,b', 'c",d', "e,f"],
        ['a,"open', 'c,d 5"', "e,f"],
        ['"a" b,c', "d,e"],
    ],
)
def test_a_mark_left_open_in_a_csv_joins_no_lines(read_table, lines):
    found = read_table("question,answer\nq,a\n" + "\n".join(lines) + "\n")
    assert all("\n" not in part for pair in found.pairs for part in pair)
    assert len(found.records) + len(found.drops) == 1 + len(lines)
    assert {reason for _, reason in found.reasons} == {"broken_row"}


def test_quoting_can_be_set(read_table):
    text = 'question,answer\n"open,b\nc",d\n'
    assert read_table(text, quoting="none").pairs == [('"open', "b"), ('c"', "d")]
    assert read_table(text, quoting="rfc4180").pairs == [("open,b\nc", "d")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_the_separator_shows_in_the_header(read_table, separator, name):
    text = f"id{separator}question{separator}answer\n1{separator}a, b? c{separator}d\n"
    text = text if separator != "," else "id,question,answer\n1,a b? c,d\n"
    assert len(read_table(text, name=name).records) == 1


@pytest.mark.parametrize("sign", [";", "\t", ","])
def test_excels_own_line_names_the_separator(read_table, sign):
    text = f"\ufeffsep={sign}\r\nquestion{sign}answer\r\nq{sign}a\r\n"
    assert read_table(text).pairs == [("q", "a")]


def test_a_wrong_column_is_named_with_what_to_set(read_table):
    with pytest.raises(DataError) as error:
        read_table("Frage;Question;Reply\n1;2;3\n")
    assert "found 'Frage', 'Question', 'Reply'" in str(error.value)
    assert "columns: {question: [Question], answer: Reply}" in str(error.value)
    with pytest.raises(DataError, match="did you mean 'label'"):
        read_table("question,answer,label\nq,a,1\n", where={"lable": "1"})
    with pytest.raises(DataError, match="two columns 'answer'"):
        read_table("question,answer,answer\nq,a,b\n")
    with pytest.raises(DataError, match="did you mean 'rejected_answer'"):
        read_table(
            "question,answer,rejected_answer\nq,a,b\n", columns={"rejected": "rejected_anser"}
        )


def test_numbers_stay_as_written(read_table):
    found = read_table("question,answer\n007,2.50\n1e5,-0\n")
    assert found.pairs == [("007", "2.50"), ("1e5", "-0")]


def test_long_lines_cost_themselves_only(read_table, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_CHARS", 1000)
    long = "x" * 5000
    found = read_table(f"question,answer\na,b\nc,{long}\ne,f\n" + f'"g,{long}\n{long}",h\ni,j\n')
    assert found.pairs[:2] == [("a", "b"), ("e", "f")]
    assert ("3", "line_too_long") in found.reasons and ("5", "line_too_long") in found.reasons
    assert len(found.records) + len(found.drops) == 6


def test_a_long_field_is_no_fault(read_table):
    answer = "long " * 60_000
    assert read_table(f"question,answer\nq,{answer}\n").pairs == [("q", answer)]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("question,answer\n", "holds no rows"), ("\n\n", "holds no line")],
)
def test_a_table_of_nothing_is_named(read_table, content, message):
    with pytest.raises(DataError, match=message):
        read_table(content)


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("text,label", ("a", "b")),
        ("prompt,completion", ("a", "b")),
        ("instruction,output", ("a", "b")),
        ("text,id", ("", "a")),
    ],
)
def test_tables_of_other_shapes(read_table, header, pair):
    assert read_table(f"{header}\na,b\n").pairs == [pair]


def test_pairs_in_a_table(read_table):
    (record,) = read_table("system;prompt;chosen;rejected\ns;q;a;b\n").records
    assert (record.system, record.answer, record.rejected) == ("s", "a", "b")


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_source("csv", path=tmp_path)
    with pytest.raises(DataError, match="is a folder"):
        read_source("parquet", path=tmp_path)


def test_values_that_are_written_as_missing_are_counted(read_table):
    found = read_table("question,answer\na,nan\nb,None\nc,none\nd,\n")
    assert found.pairs == [("a", "nan"), ("b", "None"), ("c", "none")]
    assert found.notes["missing_written_as_text"] == 2


@pytest.mark.parametrize("header", ["question, answer", '"question", "answer"'])
@pytest.mark.parametrize("sign", [",", ";"])
def test_blanks_may_stand_before_marks(read_table, header, sign):
    lines = [f'"q{n}", "a{n}"' for n in range(3)] + ['q3, "a, ""b"""', "q4, c"]
    text = "\n".join([header, *lines]).replace(", ", f"{sign} ") + "\n"
    answers = ["a0", "a1", "a2", f'a{sign} "b"', "c"]
    assert read_table(text).pairs == [(f"q{n}", answer) for n, answer in enumerate(answers)]
    assert read_table('question,answer\nq, "a" b\n').pairs == [("q", ' "a" b')]


def test_rows_of_empty_fields_are_no_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,a\n,\n , \n,,,\nr,\n", encoding="utf-8")
    found = read_source("csv", path=path)
    assert found.pairs == [("q", "a")] and found.reasons == [("6", "missing_field")]


def test_the_header_of_a_second_table_is_no_row(read_table):
    table = "question, answer\nq,a\n"
    found = read_table(table + "\ufeff" + table)
    assert found.pairs == [("q", "a")] * 2 and found.reasons == [("3", "repeated_header")]
