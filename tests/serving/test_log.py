"""The log: one line an event, nothing that was asked or answered, and nobody waits for it."""

import json
import logging
import queue

import pytest

from limbeck.serving.log import (
    JsonFormatter,
    TextFormatter,
    WaitlessHandler,
    log_fields,
    write_log,
)

logger = logging.getLogger("limbeck.serving.made_up")


def make_record(message="", *, exc_info=None, **fields):
    extra = log_fields(**fields) if fields else None
    return logger.makeRecord(logger.name, 20, "f", 1, message, (), exc_info, extra=extra)


def test_a_line_is_json_whatever_is_in_it():
    line = JsonFormatter().format(make_record(event="request", path='/"\n高', status=200))
    assert "\n" not in line
    found = json.loads(line)
    assert (found["event"], found["path"], found["status"]) == ("request", '/"\n高', 200)
    assert found["time"].endswith("+00:00") and found["level"] == "info"
    plain = json.loads(JsonFormatter().format(make_record("took %s")))
    assert (plain["event"], plain["logger"]) == ("log", logger.name)


def test_a_line_for_people_cannot_be_forged_by_a_path():
    line = TextFormatter().format(
        make_record(event="request", path="/x\n2026 INFO stop", key="ward 7", total_seconds=1.5)
    )
    assert "\n" not in line
    assert 'path="/x\\n2026' in line and 'key="ward 7"' in line and "total_seconds=1.500" in line
    assert "\n" not in TextFormatter().format(make_record("two\nlines"))


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_of_an_exception_the_message_is_left_out(formatter):
    try:
        raise ValueError("我叫王小明")
    except ValueError as error:
        trace = (ValueError, error, error.__traceback__)
        line = formatter.format(make_record("failed", exc_info=trace))
    assert "ValueError" in line and "test_log.py:" in line
    assert "王小明" not in line


def test_a_full_queue_drops_lines_and_blocks_nobody():
    handler = WaitlessHandler(queue.Queue(2))
    for _ in range(5):
        handler.handle(make_record("written, or lost"))
    assert handler.num_dropped == 3


def test_the_log_is_written_in_place_of_what_was_there_and_put_back(tmp_path):
    before = list(logging.getLogger().handlers)
    with (tmp_path / "log").open("w") as written:
        with write_log("json", to=written):
            logger.info("", extra=log_fields(event="switch", tier="small"))
            logging.getLogger("uvicorn.error").error("broken")
        assert logging.getLogger().handlers == before
        with write_log("none", to=written):
            assert logging.getLogger().handlers == before
            assert not logger.isEnabledFor(logging.INFO)
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [item["event"] for item in found] == ["switch", "log"]
