"""A router's files: what is written is read again, and damage is named."""

import json

import numpy as np
import pytest

from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.tier_router import (
    NEVER,
    NUM_BUCKETS,
    ROUTER,
    TO_LARGEST,
    WEIGHTS,
    Chance,
    Draft,
    EscalationRule,
    Gain,
    Promise,
    RoutedTier,
    TierRouter,
    TierRouterFile,
    read_router,
)

ZEROS = (0.0, 0.0, 0.0, 0.0)
PROMISE = Promise(
    min_kept_ratio=0.99, max_error_ratio=0.1, num_fitted=10, num_certified=10, num_groups=10
)


CASCADE = EscalationRule(min_gain=0.0, min_gain_before=NEVER)


def make_router(*, rule=CASCADE):
    """The large tier is right in half of the cases, the small one where its tokens are likely."""
    gain = Gain(
        inputs="figures and text",
        largest=Chance(bias=0.0, figures=ZEROS),
        own=Chance(bias=-5.0, figures=(0.0, 10.0, 0.0, 0.0), text="tier1.own"),
    )
    file = TierRouterFile(
        tiers=(
            RoutedTier(name="cloud", content_hash="c"),
            RoutedTier(name="mobile", content_hash="m", gain=gain),
        ),
        before=Gain(inputs="text", largest=gain.largest, own=gain.largest),
        rule=rule,
        promise=PROMISE,
    )
    return TierRouter(file, {"tier1.own": np.zeros(NUM_BUCKETS, dtype=np.float32)})


def test_what_is_written_is_read_again(tmp_path):
    router = make_router()
    router.write(tmp_path)
    found = read_router(tmp_path)
    assert found.file == router.file
    draft = Draft("高血压看什么科", "心内科", 0.7)
    assert found.gain("m", draft) == router.gain("m", draft)
    assert found.knows(["c", "m"])
    assert not found.knows(["m", "c"]) and not found.knows(["c"]) and not found.knows(["c", "x"])


def test_an_unsure_draft_goes_up():
    router = make_router()
    assert router.goes_up("m", Draft("q", "a", 0.1))
    assert not router.goes_up("m", Draft("q", "a", 0.9))
    assert router.goes_up("m", Draft("q", "a", 0.9, is_shown=False))
    assert not router.passes_over("q")


def test_without_a_certified_rule_all_goes_to_the_largest():
    router = make_router(rule=TO_LARGEST)
    assert router.passes_over("q") and router.goes_up("m", Draft("q", "a", 1.0))
    bare = TierRouterFile(
        tiers=[item.replace(gain=None) for item in router.file.tiers], promise=PROMISE
    )
    assert TierRouter(bare, {}).passes_over("q")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (ROUTER, "{"),
        (ROUTER, "{}"),
        (WEIGHTS, "no safetensors"),
        (ROUTER, None),
        (WEIGHTS, None),
    ],
)
def test_damage_is_named(tmp_path, name, content):
    make_router().write(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(ArtifactError, match="make it again"):
        read_router(tmp_path)


def test_weights_that_are_missing_are_named(tmp_path):
    make_router().write(tmp_path)
    value = json.loads((tmp_path / ROUTER).read_text())
    value["tiers"][1]["gain"]["largest"]["text"] = "others"
    (tmp_path / ROUTER).write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match="other weights"):
        read_router(tmp_path)


def test_the_promise_names_what_it_rests_on():
    kept = PROMISE.replace(is_certified=True, p_value=0.03, kept_ratio=1.02, largest_ratio=0.25)
    assert "99.0% of the largest tier's accuracy kept, 25.0% of the questions" in kept.describe()
    failed = PROMISE.replace(p_value=0.4, kept_ratio=0.97)
    assert "every question goes to the largest tier" in failed.describe()
    assert "min_kept_ratio" in failed.describe()
