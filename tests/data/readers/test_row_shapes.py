"""Rows of preferences, labels and plain texts, and which shape a row is taken for."""

import pytest

from limbeck.contracts.errors import DataError
from tests.support.source_reading import read_rows


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {
            "prompt": "q",
            "chosen": [user("q"), assistant("a")],
            "rejected": [user("q"), assistant("b")],
            "messages": [user("q"), assistant("a")],
        },
        {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"question": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        {
            "input": {"messages": [user("q")], "tools": []},
            "preferred_output": [assistant("a")],
            "non_preferred_output": [assistant("b")],
        },
        {"question": "q", "answer": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": "b"},
        {"chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"},
        {"instruction": "q", "output": "a", "rejected": "b"},
    ],
)
def test_pairs_of_every_format(tmp_path, row):
    (record,) = read_rows(tmp_path, row).records
    assert (record.question, record.answer, record.rejected) == ("q", "a", "b")


def test_a_pair_teaches_its_last_answer_only(tmp_path):
    start = [{"role": "system", "content": "s"}, user("q"), assistant("a"), user("r")]
    row = {"prompt": start, "chosen": [assistant("b")], "rejected": [assistant("c")]}
    whole = {"chosen": [*start, assistant("b")], "rejected": [*start, assistant("c")]}
    text = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: "
    sides = {"chosen": f"{text}b", "rejected": f"{text}c"}
    (transcript,) = read_rows(tmp_path, {**sides, "system": "s"}).records
    for record in [*read_rows(tmp_path, row, whole).records, transcript]:
        assert (record.question, record.answer, record.rejected) == ("r", "b", "c")
        assert record.history == ("q", "a") and record.system == "s"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "equal_sides"),
        ({"prompt": "q", "chosen": "a", "rejected": " a\n"}, "equal_sides"),
        ({"question": "q", "answer": "a", "rejected": "a"}, "equal_sides"),
        ({"prompt": "q", "chosen": [assistant("a")], "rejected": "a"}, "equal_sides"),
        ({"chosen": "Human: q Assistant: a", "rejected": "Human: q"}, "missing_field"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "missing_field"),
        ({"prompt": "q", "chosen": "a", "rejected": 3}, "wrong_type"),
        (
            {"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")]},
            "broken_conversation",
        ),
        (
            {"prompt": "z", "chosen": [user("q"), assistant("a")], "rejected": [assistant("b")]},
            "broken_conversation",
        ),
        ({"prompt": "q", "chosen": [assistant("a")], "rejected": []}, "broken_conversation"),
        ({"prompt": "q", "completion": "a", "label": False}, "unpaired_preference"),
        ({"instruction": "q", "output": "a", "kto_tag": "false"}, "unpaired_preference"),
        ({"messages": [user("q"), assistant("a")], "label": False}, "unpaired_preference"),
        ({"text": "t", "label": "x", "answer": "reject", "_view_id": "choice"}, "not_accepted"),
        ({"text": "t", "system": "s"}, "broken_conversation"),
        ({"text": "t", "label": None}, "missing_field"),
        ({"text": "t", "question": None, "answer": None}, "missing_field"),
        ({"text": "t", "messages": None}, "missing_field"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tmp_path, row, reason):
    found = read_rows(tmp_path, {"question": "fine", "answer": "yes"}, row)
    assert found.reasons == [("2", reason)] and len(found.records) == 1


def test_what_somebody_accepted_is_learnt(tmp_path):
    marked = {"instruction": "q", "output": "a", "kto_tag": True}
    worse = {**marked, "output": "b", "kto_tag": False}
    annotated = {"text": "q", "label": "a", "answer": "accept", "_view_id": "classification"}
    found = read_rows(tmp_path, marked, worse, annotated, where={"kto_tag": "True"})
    assert found.pairs == [("q", "a")] and {reason for _, reason in found.reasons} == {"filtered"}
    found = read_rows(tmp_path, annotated)
    assert found.pairs == [("q", "a")] and found.notes["columns_not_read"] == {"a": ["_view_id"]}


@pytest.mark.parametrize(
    "row",
    [
        {"text": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: b"},
        {"text": "### Human: q### Assistant: a### Human: r### Assistant: b"},
        {"instruction": "Human:q\nAssistant:a\nHuman:r\nAssistant:", "input": "", "output": "b"},
        {"question": "Human: q\nAssistant: a\nHuman: r", "answer": "b"},
    ],
)
def test_a_text_that_marks_its_speakers_is_a_conversation(tmp_path, row):
    _, record = read_rows(tmp_path, row).records
    assert (record.history, record.question, record.answer) == (("q", "a"), "r", "b")


def test_a_text_that_only_names_a_speaker_is_a_text(tmp_path):
    rows = [
        {"question": text, "answer": "b"} for text in ("Human: q", "Is a Human:\nx? Assistant:")
    ]
    assert [asked for asked, _ in read_rows(tmp_path, *rows).pairs] == [r["question"] for r in rows]


def test_a_path_leads_into_lists_and_what_follows_is_named(tmp_path):
    answers = ({"text": ["a", "b"], "start": [3, 4]}, {"text": [], "start": []})
    rows = [{"question": "q", "answers": found, "id": 1} for found in answers]
    found = read_rows(tmp_path, *rows, columns={"answer": "answers.text.0"})
    assert found.pairs == [("q", "a")] and found.reasons == [("2", "missing_field")]
    assert found.notes["columns_not_read"] == {"a": ["answers.text.1", "answers.start", "id"]}


def test_a_name_with_a_point_is_a_name_first(tmp_path):
    row = {"t.x": ["q", "r"], "t.y": "z", "answer": "a"}
    found = read_rows(tmp_path, row, columns={"question": ["t.x.1"]})
    assert found.pairs == [("r", "a")] and found.notes["columns_not_read"] == {"a": ["t.y"]}


def test_an_input_that_is_none_is_left_out_or_counted(tmp_path):
    rows = [{"instruction": "q", "input": text, "output": "a"} for text in ("<noinput>", "nan")]
    found = read_rows(tmp_path, *rows)
    assert found.pairs == [("q", "a"), ("q nan", "a")]
    assert found.notes["missing_written_as_text"] == 1


def test_prompts_with_completions(tmp_path):
    texts = {"prompt": "q", "completion": "a"}
    lists = {"prompt": [user("q")], "completion": [assistant("a")]}
    assert read_rows(tmp_path, texts, lists).pairs == [("q", "a")] * 2


def test_labels_and_plain_texts(tmp_path):
    rows = [{"text": "fever", "label": "triage"}, {"text": "rash", "label": 3}]
    found = read_rows(tmp_path, *rows, {"text": "  x = 1\n    y = 2\n"}, {"text": "", "label": "x"})
    assert found.pairs == [("fever", "triage"), ("rash", "3"), ("", "  x = 1\n    y = 2\n")]
    assert found.reasons == [("4", "missing_field")]
    assert len({record.group for record in found.records}) == 3


def test_texts_are_left_alone(tmp_path):
    code = "    if x:\n        return 1\n"
    assert read_rows(tmp_path, {"question": "q ", "answer": code}).pairs == [("q ", code)]


def test_columns_that_the_recipe_names_come_first(tmp_path):
    row = {"title": "t", "body": "b", "text": "x", "messages": [user("q"), assistant("a")]}
    columns = {"question": ["title"], "answer": "body"}
    assert read_rows(tmp_path, row, columns=columns).pairs == [("t", "b")]
    assert read_rows(tmp_path, row).pairs == [("q", "a")]


def test_a_column_that_no_row_has_is_refused_whatever_the_shape(tmp_path):
    row = {"messages": [user("q"), assistant("a")]}
    with pytest.raises(DataError, match="no column 'qestion'; found 'messages'; leave it out"):
        read_rows(tmp_path, row, columns={"question": ["qestion"]})


def test_a_column_that_is_empty_in_a_row_does_not_choose_its_shape(tmp_path):
    row = {"messages": None, "instruction": None, "question": "q", "answer": "a"}
    assert read_rows(tmp_path, row).pairs == [("q", "a")]
    with pytest.raises(DataError, match="no column 'question' and no 'answer'"):
        read_rows(tmp_path, {"messages": None, "x": 1})
