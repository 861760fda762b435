"""Which tier is asked next, and whose answer counts: by table, without an engine."""

import pytest

from limbeck.contracts.errors import (
    BudgetError,
    CircuitOpenError,
    EngineDownError,
    QueueFullError,
    RefusedError,
    SlowTierError,
)
from limbeck.serving.cascade import (
    Attempt,
    GiveUp,
    Show,
    Try,
    failures,
    name_failure,
    next_step,
)

ORDER = ("small", "mid", "large")
FAILED = ("down", "slow", "circuit open", "full", "over budget")


def after(*outcomes, order=ORDER, begins="smallest tier"):
    attempts = [Attempt(*item) for item in zip(order, outcomes, strict=False)]
    return next_step(order, attempts, begins=begins)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((), Try("small", "smallest tier", False)),
        (("sure",), Show("small", "smallest tier")),
        (("unsure",), Try("mid", "escalated", False)),
        (("unsure", "sure"), Show("mid", "escalated")),
        (("unsure", "unsure"), Try("large", "escalated", True)),
        (("unsure", "unsure", "sure"), Show("large", "escalated")),
        # Nobody is sure: the largest tier's verdict counts.
        (("unsure", "unsure", "unsure"), Show("large", "escalated")),
        # A request that a tier cannot read goes up as one that it is not sure of does.
        (("refused",), Try("mid", "escalated", False)),
        (("refused", "sure"), Show("mid", "escalated")),
        (("refused", "refused", "refused"), GiveUp()),
        (("unsure", "refused", "refused"), Show("small", "degraded")),
    ],
)
def test_without_failures_a_request_goes_up_until_a_tier_is_sure(outcomes, expected):
    assert after(*outcomes) == expected


@pytest.mark.parametrize("failed", FAILED)
def test_after_a_failure_the_best_remaining_answer_counts_and_is_marked(failed):
    table = [
        ((failed,), Try("mid", "degraded", False)),
        ((failed, "sure"), Show("mid", "degraded")),
        ((failed, "unsure"), Try("large", "degraded", True)),
        ((failed, "unsure", "sure"), Show("large", "degraded")),
        (("unsure", failed), Try("large", "degraded", True)),
        (("unsure", failed, "sure"), Show("large", "degraded")),
        # What a smaller tier had to say is not lost by a failure above it.
        (("unsure", "unsure", failed), Show("mid", "degraded")),
        (("unsure", failed, failed), Show("small", "degraded")),
        (("unsure", failed, "unsure"), Show("large", "degraded")),
        ((failed, failed, failed), GiveUp()),
        ((failed, "refused", failed), GiveUp()),
    ]
    for outcomes, expected in table:
        assert after(*outcomes) == expected, outcomes


@pytest.mark.parametrize("failed", FAILED)
def test_nothing_stands_in_for_a_named_tier(failed):
    assert after(order=["large"], begins="named") == Try("large", "named", True)
    for outcome in ("sure", "unsure"):
        assert after(outcome, order=["large"], begins="named") == Show("large", "named")
    assert after(failed, order=["large"], begins="named") == GiveUp()


def test_every_path_ends():
    """Whatever tiers do, each is asked once at most, in order, and then there is a result."""
    outcomes = ("sure", "unsure", "refused", *FAILED)

    def walk(done):
        step = after(*done)
        if isinstance(step, Try):
            assert step.tier == ORDER[len(done)]
            assert step.is_last == (len(done) == 2)
            for outcome in outcomes:
                walk((*done, outcome))
        elif isinstance(step, Show):
            shown = done[ORDER.index(step.tier)]
            assert shown in ("sure", "unsure")
            assert "sure" not in done or shown == "sure"
        else:
            assert not {"sure", "unsure"} & {*done}

    walk(())


def test_errors_have_names_for_metrics():
    errors = {
        "over budget": BudgetError("x"),
        "full": QueueFullError("x"),
        "slow": SlowTierError("x"),
        "circuit open": CircuitOpenError("x", retry_seconds=1.0),
        "down": EngineDownError("x"),
        "refused": RefusedError("x", is_too_long=True),
    }
    assert {name: name_failure(error) for name, error in errors.items()} == {
        name: name for name in errors
    }
    attempts = [Attempt("small", "unsure"), Attempt("mid", "slow"), Attempt("large", "full")]
    assert failures(attempts) == {"mid": "slow", "large": "full"}
