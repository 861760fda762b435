import os
import signal

import pytest

from limbeck.env import interrupts
from limbeck.env.progress import track


class Interrupted:
    """Interrupts while it is destroyed, where Python prints an exception and drops it."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def restored():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_stops_at_the_next_progress():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.catch_interrupts()
    with pytest.raises(KeyboardInterrupt), track("work", total=3, unit="step") as advance:
        advance()
        item = Interrupted()
        del item
        advance()


def test_an_interrupt_is_raised_once():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.catch_interrupts()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupts.raise_lost_interrupt()
    interrupts.raise_lost_interrupt()


def test_ignored_interrupts_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.catch_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
