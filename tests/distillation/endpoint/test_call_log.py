"""The log of calls: money and answers survive a kill."""

from limbeck.distillation.endpoint.call_log import CallLog


def test_money_that_a_kill_left_uncertain_counts_as_spent(tmp_path):
    call_log = CallLog(tmp_path / "calls.jsonl")
    call_log.begin("a", key="1", bound=5.0)
    call_log.begin("b", key="2", bound=3.0)
    assert (call_log.spent, call_log.reserved) == (0, 8)
    call_log.end("a", key="1", cost=2.0, error="", response={"text": "好"})
    assert (call_log.spent, call_log.reserved) == (2, 3)
    again = CallLog(tmp_path / "calls.jsonl")
    assert (again.spent, again.reserved) == (5, 0)
    assert again.find("1") == {"text": "好"}
    assert again.find("2") is None


def test_failed_calls_are_no_answers(tmp_path):
    call_log = CallLog(tmp_path / "calls.jsonl")
    call_log.begin("a", key="1", bound=5.0)
    call_log.end("a", key="1", cost=0.0, error="busy", response={})
    assert call_log.find("1") is None
    assert call_log.spent == call_log.reserved == 0


def test_any_text_comes_back(tmp_path):
    call_log = CallLog(tmp_path / "calls.jsonl")
    for number, text in enumerate(["\ud800", "\u2028 \x00", "二\n行"]):
        call_log.begin("a", key=str(number), bound=0.0)
        call_log.end("a", key=str(number), cost=0.0, error="", response={"text": text})
    for found in (call_log, CallLog(tmp_path / "calls.jsonl")):
        assert found.find("0") == {"text": "\ud800"}
        assert found.find("2") == {"text": "二\n行"}
