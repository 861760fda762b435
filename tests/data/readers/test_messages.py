"""Chats: what stands in them is kept, skipped as said, or refused by name."""

import json

import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record
from tests.support.source_reading import read_rows


def say(*texts, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def system(text, role="system"):
    return {"role": role, "content": text}


GOOD = {"messages": say("fine", "yes")}


def refusal(folder, row):
    """The one drop of a row that stands beside a good one."""
    found = read_rows(folder, GOOD, row)
    assert len(found.records) == 1 and len(found.drops) == 1
    return found.drops[0].reason.key


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [system("be brief"), *say("q", "a")]},
        {"messages": [system("be brief", role="developer"), *say("q", "a")]},
        {"messages": [system([{"type": "text", "text": "be brief"}]), *say("q", "a")]},
        {"messages": say("q", "a"), "system": "be brief"},
        {"messages": [system("be brief"), *say("q", "a")], "system": "be brief"},
        {
            "conversations": [
                {"from": "system", "value": "be brief"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
            ]
        },
        {"instruction": "q", "input": "", "output": "a", "system": "be brief"},
        {"question": "q", "answer": "a", "system": "be brief"},
        {"system_prompt": "be brief", "question": "q", "answer": "a"},
        {"system": "be brief", "question": "q", "chosen": "a", "rejected": "b"},
        {"messages": [{"system": "be brief", "input": "q", "output": "a"}]},
        {"conversations": [{"human": "q", "assistant": "a"}], "system": "be brief"},
        {"messages": json.dumps([system("be brief"), *say("q", "a")])},
        {
            "messages": [
                {"role": "user", "parts": [{"text": "q"}]},
                {"role": "model", "parts": [{"text": "a"}]},
            ],
            "system": "be brief",
        },
    ],
)
def test_instructions_are_kept(tmp_path, row):
    (record,) = read_rows(tmp_path, row).records
    assert (record.system, record.question, record.answer) == ("be brief", "q", "a")


@pytest.mark.parametrize("text", ["", None, "  "])
def test_empty_instructions_are_none(tmp_path, text):
    row = {"messages": [system(text), *say("q", "a")], "system": text}
    assert read_rows(tmp_path, row).records[0].system == ""


@pytest.mark.parametrize(
    "messages",
    [
        [*say("q", "a"), system("now in verse"), *say("r", "b")],
        [system("x"), system("y"), *say("q", "a")],
        [*say("q"), system("x"), *say("a", first="assistant")],
        [system("x")],
        [system("x"), *say("hello", first="assistant")],
        say("q"),
        say("q", "a", "r"),
        [*say("q"), *say("r", "a")],
        [*say("q", "a"), *say("b", first="assistant")],
        [*say("a", first="assistant"), *say("b", "q", "c", first="assistant")],
        [*say("q"), {"role": "assistant", "content": None}],
        [*say("q"), {"role": "assistant", "content": 3}],
        [*say("q"), {"role": "assistant", "content": 3.5}],
        [*say("q"), {"role": "assistant", "content": {"text": "a"}}],
        [*say("q"), {"role": "narrator", "content": "a"}],
        [*say("q"), {"role": 3, "content": "a"}],
        [*say("q"), "a"],
        [{"question": "q", "answer": ""}],
        [{"question": "q", "answer": "a"}, {"question": "r", "answer": 3}],
        [*say("q"), None],
        [],
        "q",
        [
            *(say("q")[0] | {"name": "ann"}, *say("a", first="assistant")),
            *(say("r")[0] | {"name": "bob"}, *say("b", first="assistant")),
        ],
        [{"role": "user", "content": [{"type": "input_audio"}]}, *say("a", first="assistant")],
        [{"role": "user", "content": [3]}, *say("a", first="assistant")],
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, messages):
    assert refusal(tmp_path, {"messages": messages}) == "broken_conversation"


def test_two_different_instructions_are_refused(tmp_path):
    row = {"messages": [system("x"), *say("q", "a")], "system": "y"}
    assert refusal(tmp_path, row) == "broken_conversation"


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*say("q"), CALL, {"role": "tool", "tool_call_id": "1", "content": "4"}]},
        {"messages": [*say("q"), {"role": "assistant", "content": "a", "function_call": {"n": 1}}]},
        {"messages": [*say("q"), {"role": "function", "name": "f", "content": "4"}]},
        {"messages": say("q", "a"), "tools": [{"type": "function"}]},
        {"messages": [*say("q"), {"role": "assistant", "content": [{"type": "tool_use"}]}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "observation", "value": "a"}]},
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": "{}"},
                {"from": "gpt", "value": "a"},
            ]
        },
    ],
)
def test_tools_have_a_reason_of_their_own(tmp_path, row):
    assert refusal(tmp_path, row) == "tool_turns"


@pytest.mark.parametrize("empty", [None, [], "", "[]"])
def test_no_tools_are_no_fault(tmp_path, empty):
    messages = [message | {"tool_calls": empty, "name": None} for message in say("q", "a")]
    assert read_rows(tmp_path, {"messages": messages, "tools": empty}).pairs == [("q", "a")]


@pytest.mark.parametrize(
    "switch", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss_mask": 0}]
)
def test_an_answer_of_weight_zero_is_read_and_not_learnt(tmp_path, switch):
    messages = say("q", "bad", "r", "good")
    messages[1] |= switch
    found = read_rows(tmp_path, {"messages": messages})
    (record,) = found.records
    assert (record.question, record.answer, record.history) == ("r", "good", ("q", "bad"))
    assert found.notes["untrained_turns"] == 1
    last = say("q", "good", "r", "bad")
    last[3] |= switch
    found = read_rows(tmp_path, {"messages": last})
    assert found.pairs == [("q", "good")]


@pytest.mark.parametrize(
    "switch", [{"weight": 1}, {"weight": 1.0}, {"train": True}, {"weight": None}]
)
def test_an_answer_of_weight_one_is_learnt(tmp_path, switch):
    row = {"messages": [say("q")[0], say("a", first="assistant")[0] | switch]}
    assert read_rows(tmp_path, row, row | switch).pairs == [("q", "a")] * 2


@pytest.mark.parametrize(
    "row",
    [
        {"messages": say("q", "a"), "weight": 0},
        {"conversations": say("q", "a"), "train": False},
        {"question": "q", "answer": "a", "train": False},
        {"question": "q", "answer": "a", "weight": 0.0},
        {"messages": [say("q")[0], say("a", first="assistant")[0] | {"weight": 0}]},
    ],
)
def test_a_row_without_anything_to_learn_is_counted(tmp_path, row):
    assert refusal(tmp_path, row) == "not_trained"


@pytest.mark.parametrize("weight", [0.5, 2, "high", -1])
def test_other_weights_are_refused(tmp_path, weight):
    row = {"messages": [say("q")[0], say("a", first="assistant")[0] | {"weight": weight}]}
    assert refusal(tmp_path, row) == "unknown_weight"


def test_weights_of_parts_are_refused_and_unknown_keys_are_named(tmp_path):
    messages = say("q", "a")
    row = {"messages": messages, "source": "x", "conversations": None}
    assert read_rows(tmp_path, row).notes.get("columns_not_read") == {"a": ["source"]}
    messages[1]["mask"] = 1
    assert read_rows(tmp_path, row).notes["columns_not_read"] == {"a": ["messages.mask", "source"]}
    messages[1]["train_detail"] = [{"begin_offset": 0, "end_offset": 1, "train": False}]
    assert refusal(tmp_path, row) == "unknown_weight"


def test_reasoning_beside_the_content_is_refused(tmp_path):
    message = {"role": "assistant", "content": "a", "reasoning_content": "since ..."}
    assert refusal(tmp_path, {"messages": [*say("q"), message]}) == "reasoning_not_read"


def test_parts_are_joined(tmp_path):
    parts = [{"type": "text", "text": "line one"}, {"type": "text", "text": "line two"}]
    row = {"messages": [{"role": "user", "content": parts}, *say("a", first="assistant")]}
    assert read_rows(tmp_path, row).pairs == [("line one\nline two", "a")]


def with_image(part, **row):
    content = [{"type": "text", "text": "what is it"}, part]
    return {"messages": [{"role": "user", "content": content}, *say("a", first="assistant")], **row}


def test_images_in_parts_follow_the_rule_of_images(tmp_path):
    rows = [
        with_image({"type": "image_url", "image_url": {"url": "x.png"}}),
        with_image({"type": "image", "image": "x.png"}),
        with_image({"type": "image"}, images=["x.png"]),
        {"conversations": say("<image>\nwhat is it", "a"), "image": "x.png"},
    ]
    found = read_rows(tmp_path, *rows, image_folder=str(tmp_path))
    assert {record.images for record in found.records} == {(str(tmp_path / "x.png"),)}
    assert found.pairs == [("what is it", "a")] * 4


def test_an_image_in_its_row_needs_no_folder(tmp_path):
    url = "data:image/png;base64,AAAA"
    row = with_image({"type": "image_url", "image_url": {"url": url}})
    assert [record.images for record in read_rows(tmp_path, row).records] == [(url,)]


@pytest.mark.parametrize(
    "row",
    [
        with_image({"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}),
        with_image({"type": "image_url", "image_url": {"url": "data:text/plain;base64,AAAA"}}),
        {"conversations": say("<image> <image> same?", "a"), "image": "x.png"},
        {"messages": say("<image>", "a"), "image": "x.png"},
    ],
)
def test_images_that_cannot_be_read_are_refused(tmp_path, row):
    found = read_rows(tmp_path, GOOD, row, image_folder=str(tmp_path))
    assert [reason for _, reason in found.reasons] == ["images_not_read"]
    assert refusal(tmp_path, row) == "images_not_read"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": say("hello, I help", "q", "a", first="assistant")},
        {"messages": [system("x"), *say("hello", "q", "a", first="assistant")]},
        {"conversations": say("hello", "q", "a", first="assistant")},
        {"instruction": "q", "output": "a", "history": [[None, "hello"]]},
        {"instruction": "q", "output": "a", "history": [["", "hello"]]},
        {"question": "q", "answer": "a", "history": [[None, "hello"]]},
    ],
)
def test_a_greeting_before_the_first_question_is_skipped_and_noted(tmp_path, row):
    found = read_rows(tmp_path, row)
    assert found.pairs == [("q", "a")] and found.records[0].history == ()
    assert found.notes["skipped_greetings"] == 1


@pytest.mark.parametrize(
    "history",
    [
        [["q", None]],
        [["q", ""]],
        [["q", "a"], [None, "b"]],
        [[{"role": "user"}, 3]],
        [["q", 3]],
        [["q", 3.5]],
        [["q", ["a"]]],
        [["q"]],
        ["q", "a"],
        [3],
        "q",
        {"q": "a"},
        [None],
        [{"role": "user", "content": "q"}],
    ],
)
def test_earlier_turns_are_texts_or_the_row_is_refused(tmp_path, history):
    row = {"instruction": "r", "input": "", "output": "b", "history": history}
    assert refusal(tmp_path, row) == "broken_conversation"


@pytest.mark.parametrize("history", [None, [], ""])
def test_no_earlier_turns_are_no_fault(tmp_path, history):
    row = {"instruction": "q", "output": "a", "history": history}
    assert read_rows(tmp_path, row).pairs == [("q", "a")]


@pytest.mark.parametrize("history", [[["q", "a"]], say("q", "a")])
def test_earlier_turns_are_records_and_read_before_the_last(tmp_path, history):
    for row in ({"instruction": "r", "output": "b"}, {"question": "r", "answer": "b"}):
        found = read_rows(tmp_path, row | {"history": history})
        assert found.pairs == [("q", "a"), ("r", "b")]
        assert found.records[1].history == ("q", "a")


def test_a_file_of_refused_rows_gives_the_reason(tmp_path):
    with pytest.raises(DataError, match="tool_turns"):
        read_rows(tmp_path, {"messages": [*say("q"), CALL]})


def test_names_of_one_speaker_are_noted(tmp_path):
    row = {"messages": [say("q")[0] | {"name": "ann"}, *say("a", first="assistant")]}
    found = read_rows(tmp_path, row)
    assert found.pairs == [("q", "a")] and found.notes["ignored_names"] == 1


def test_turns_of_one_conversation_are_not_many_answers(tmp_path):
    row = {"messages": say("q", "a", "r", "b", "s", "c")}
    found = read_rows(tmp_path, row, max_answers=1)
    assert [record.question for record in found.records] == ["q", "r", "s"]
    assert all(isinstance(record, Record) for record in found.records)
