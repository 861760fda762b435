"""Workers in real fresh processes."""

import threading

import pytest

from limbeck.contracts.child_process import spawn
from limbeck.contracts.errors import CheckpointError, DataError


class Worker:
    def double(self, *, value):
        return 2 * value

    def fail(self, *, line):
        raise DataError("is odd", path="a.jsonl", line=line)

    def err(self):
        return 1 / 0

    def wait(self):
        threading.Event().wait()


def test_a_worker_answers_and_its_errors_arrive_whole():
    with spawn("one", Worker) as child:
        assert child.call("double", value=21) == 42
        with pytest.raises(DataError, match=r"a\.jsonl:7: is odd") as caught:
            child.call("fail", line=7)
        assert caught.value.line == 7
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            child.call("err")
        child.send("double", value=1)
        child.send("double", value=2)
        assert (child.receive(), child.receive()) == (2, 4)
    assert not child.process.is_alive()


def test_an_error_ends_the_process_and_whoever_waits_for_it():
    found = []

    def wait():
        with pytest.raises(CheckpointError, match="one: its process ended"):
            child.call("wait")
        found.append("ended")

    with pytest.raises(ValueError, match="mine"), spawn("one", Worker) as child:
        thread = threading.Thread(target=wait)
        thread.start()
        child.process.join(0.2)  # until it has begun to wait, or soon will
        raise ValueError("mine")
    thread.join()
    assert found == ["ended"]
