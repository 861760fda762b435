"""`auto` goes by the router where it knows the models, and by their own confidence elsewhere."""

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy, PolicyFile
from limbeck.contracts.errors import EngineDownError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.tier_router import (
    NEVER,
    TO_LARGEST,
    Chance,
    EscalationRule,
    Gain,
    Promise,
    RoutedTier,
    TierRouter,
    TierRouterFile,
)
from tests.serving.test_service import SURE, UNSURE, Scripted, ask, make
from tests.support.answer_policies import CONFIDENCE

QUESTION = "高血压有哪些常见症状"
FAMILIAR = AnswerPolicy(PolicyFile(confidence=CONFIDENCE), Familiarity.of([QUESTION]))
"""Finds all foreign that is not about high blood pressure."""
CASCADE = EscalationRule(min_gain=0.0, min_gain_before=NEVER)


def make_router(names, *, rule=CASCADE, before=-9.0):
    """Every smaller tier is right where its tokens are likelier than one half."""
    even = Chance(bias=0.0, figures=(0.0, 0.0, 0.0, 0.0))
    own = Chance(bias=-5.0, figures=(0.0, 10.0, 0.0, 0.0))
    gain = Gain(inputs="figures", largest=even, own=own)
    tiers = [RoutedTier(name=names[0], content_hash=f"key-{names[0]}")]
    tiers += [RoutedTier(name=name, content_hash=f"key-{name}", gain=gain) for name in names[1:]]
    likely = Chance(bias=before, figures=(0.0, 0.0, 0.0, 0.0))
    file = TierRouterFile(
        tiers=tuple(tiers),
        before=Gain(inputs="text", largest=likely, own=even),
        rule=rule,
        promise=Promise(
            min_kept_ratio=0.99, max_error_ratio=0.1, num_fitted=0, num_certified=0, num_groups=0
        ),
    )
    return TierRouter(file, {})


def serve(*ratios, router=None, **failing):
    """The tier and the reason of an answer to `auto`, and how often each engine was asked."""
    names = ("large", "mid", "small")
    engines = {
        name: Scripted(f"来自{name}", ratio=ratio, error=failing.get(name))
        for name, ratio in zip(names, ratios, strict=True)
    }
    route, *_ = ask(make(engines, router=router or make_router(names)), question=QUESTION)
    return route.tier, route.reason, [item.num_asked for item in engines.values()]


def test_a_sure_draft_stays_and_an_unsure_one_goes_up_tier_by_tier():
    assert serve(0.9, 0.9, 0.9) == ("small", "smallest tier", [0, 0, 1])
    assert serve(0.9, 0.9, 0.1) == ("mid", "escalated", [0, 1, 1])
    assert serve(0.1, 0.1, 0.1) == ("large", "escalated", [1, 1, 1])


def test_the_largest_tier_answers_at_once_where_the_question_requires_it():
    names = ("large", "mid", "small")
    passing = make_router(names, rule=EscalationRule(min_gain=0.0, min_gain_before=0.2), before=9.0)
    assert serve(0.9, 0.9, 0.9, router=passing) == ("large", "escalated", [1, 0, 0])
    all_up = make_router(names, rule=TO_LARGEST)
    assert serve(0.9, 0.9, 0.9, router=all_up) == ("large", "escalated", [1, 0, 0])


def test_the_others_stand_in_for_the_largest():
    all_up = make_router(("large", "mid", "small"), rule=TO_LARGEST)
    down = EngineDownError("down")
    found = serve(0.9, 0.9, 0.9, router=all_up, large=down)
    assert found == ("mid", "degraded", [1, 1, 1])
    found = serve(0.9, 0.9, 0.1, large=down, mid=down)
    assert found == ("small", "degraded", [1, 1, 1])


def test_what_is_foreign_stays_with_the_tier_that_can_decide():
    """The largest one is not calibrated, and would answer anything."""
    engines = {
        "large": Scripted("来自large", judgement=None),
        "small": Scripted("来自small", judgement=UNSURE, ratio=0.1),
    }
    names = tuple(engines)
    service = make(engines, policy=FAMILIAR, router=make_router(names), large={})
    route, *_ = ask(service, question="how is the weather in Lisbon")
    assert (route.tier, engines["large"].num_asked) == ("small", 0)
    assert ask(service, question=QUESTION)[0].tier == "large"


@pytest.mark.parametrize("known", [("large", "other"), ("small", "large"), ("large",)])
def test_another_models_router_is_not_asked(known, caplog):
    engines = {
        "large": Scripted("来自large", judgement=SURE, ratio=0.1),
        "small": Scripted("来自small", judgement=SURE, ratio=0.1),
    }
    router = make_router((*known, "x") if len(known) == 1 else known)
    service = make(engines, router=router)
    assert "fitted on other models" in caplog.text
    assert ask(service, question=QUESTION)[0].tier == "small"


def test_a_named_tier_answers_whatever_the_router_thinks():
    engines = {name: Scripted(f"来自{name}", ratio=0.1) for name in ("large", "small")}
    service = make(engines, router=make_router(tuple(engines)))
    assert ask(service, question=QUESTION, model="small")[0].tier == "small"
