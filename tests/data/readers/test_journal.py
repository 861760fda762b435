"""Corrections and approved answers become records; what nobody judged does not."""

import json

import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.exchange import write_row
from limbeck.contracts.leaks import LeakIndex
from limbeck.contracts.records import Drop, Note, Question, Record
from limbeck.data.packs.load import empty_pack
from limbeck.data.readers.journal import Config
from tests.support.journal import make_exchange, make_feedback


def write(path, *rows):
    lines = [
        {
            "seq": 1,
            "hash": "0a",
            "exchange": write_row(exchange),
            "feedback": [*map(write_row, said)],
        }
        for exchange, said in rows
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def read(path, **fields):
    config = Config.model_validate({"kind": "journal", "path": path, **fields})
    return list(config.read(pack=empty_pack(), seed=0))


def records(items):
    return {item.id.partition(":")[2]: item for item in items if isinstance(item, Record)}


def reasons(items):
    return [item.reason.key for item in items if isinstance(item, Drop)]


def reviewed(**fields):
    return make_feedback(1, role="reviewer", **fields)


ROWS = (
    (make_exchange(0), [reviewed(corrected_answer="多喝水")]),
    (make_exchange(1, history=("早", "你好"), system="简短"), [reviewed(thumbs="up")]),
    (make_exchange(2), [reviewed(thumbs="down")]),
    (make_exchange(3), []),
    (make_exchange(4), [make_feedback(2, thumbs="up")]),
    (make_exchange(5, status="declined", answer=""), [reviewed(corrected_answer="低嘌呤")]),
    (make_exchange(6, status="declined", answer=""), [reviewed(thumbs="up")]),
    (make_exchange(7), [reviewed(thumbs="up"), make_feedback(3, corrected_answer="乱写")]),
)


def test_reviewers_decide(tmp_path):
    items = read(write(tmp_path / "a.jsonl", *ROWS))
    found = records(items)
    assert set(found) == {"e0", "e1", "e5", "e7"}
    assert (found["e0"].answer, found["e0"].rejected) == ("多喝水", "低嘌呤饮食0")
    assert (found["e1"].answer, found["e1"].rejected) == ("低嘌呤饮食1", "")
    assert (found["e1"].history, found["e1"].system) == (("早", "你好"), "简短")
    assert (found["e5"].answer, found["e5"].rejected) == ("低嘌呤", "")
    assert found["e7"].answer == "低嘌呤饮食7"
    assert found["e0"].place == "a.jsonl:1"
    assert reasons(items) == ["found_bad", "not_judged", "not_judged", "no_answer"]
    notes = {item.name: item.value for item in items if isinstance(item, Note)}
    assert (notes["corrected_answers"], notes["approved_answers"]) == (2, 2)


def test_what_no_model_wrote_is_not_learnt(tmp_path):
    """A stored fact with its citation, or a rule's text: only a reviewer's correction of it is."""
    stated = [make_exchange(place, tier="facts", is_machine_made=False) for place in (0, 1)]
    rows = [
        (stated[0], [reviewed(thumbs="up")]),
        (stated[1], [reviewed(corrected_answer="多喝水")]),
        (make_exchange(2), [reviewed(thumbs="up")]),
    ]
    items = read(write(tmp_path / "a.jsonl", *rows))
    assert reasons(items) == ["no_model"]
    found = records(items)
    assert set(found) == {"e1", "e2"}
    assert (found["e1"].answer, found["e1"].rejected) == ("多喝水", "")


def test_settings(tmp_path):
    path = write(tmp_path / "a.jsonl", *ROWS)
    assert set(records(read(path, judged_by="anyone"))) == {"e0", "e1", "e4", "e5", "e7"}
    assert records(read(path, judged_by="anyone"))["e7"].answer == "低嘌呤饮食7"
    assert set(records(read(path, approved="leave"))) == {"e0", "e5"}


def test_a_question_of_evaluation_is_found_in_it(tmp_path):
    path = write(tmp_path / "a.jsonl", (make_exchange(0), [reviewed(corrected_answer="x")]))
    (record,) = records(read(path)).values()
    asked = Question("q", "recall", "痛风0吃什么", ("低嘌呤",), "single")
    assert LeakIndex([asked]).find(record)


def test_lines_that_are_none_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS[0])
    with path.open("a") as file:
        file.write('{"question": "a"}\n[]\nno json\n{"exchange": {"id": "x"}, "feedback": []}\n')
    assert reasons(read(path)) == ["not_an_exchange"] * 4


def test_a_file_without_judgements_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS[3])
    with pytest.raises(DataError, match="judged_by: anyone"):
        read(path)
