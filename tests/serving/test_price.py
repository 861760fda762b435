"""Prices of tiers: what a recipe may say, and the money that comes of it."""

import pytest
from pydantic import ValidationError

from limbeck.serving.config import ServeConfig
from limbeck.serving.price import PriceConfig, TierUse, compute_cost


def test_cost():
    price = PriceConfig(
        currency="CNY", per_million_input_tokens=2.0, per_million_output_tokens=8.0, per_hour=3.6
    )
    found = compute_cost(price, TierUse(500_000, 250_000, 0.5))
    assert found == {"input": 1.0, "output": 2.0, "hours": 1.8}
    assert compute_cost(PriceConfig(currency="CNY"), TierUse(9, 9, 9.0)) == {
        "input": 0,
        "output": 0,
        "hours": 0,
    }


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ([{"per_hour": 1.0}], "currency: CNY"),
        ([{"currency": "yuan"}], "pattern"),
        ([{"currency": "CNY", "per_hour": -1.0}], "greater than or equal to 0"),
        ([{"currency": "CNY"}, {"currency": "USD"}], "CNY and USD"),
        ([{"currency": "CNY", "per_request": 1.0}], "per_request"),
    ],
)
def test_a_price_that_means_nothing_is_refused(prices, said):
    tiers = [{"name": f"t{i}", "model": "m", "price": price} for i, price in enumerate(prices)]
    with pytest.raises(ValidationError, match=said):
        ServeConfig.model_validate({"tiers": tiers})


def test_a_tier_may_have_no_price():
    tiers = [{"name": "a", "model": "m"}, {"name": "b", "model": "m", "price": {"currency": "CNY"}}]
    found = ServeConfig.model_validate({"tiers": tiers})
    assert [tier.price.is_known for tier in found.tiers] == [False, True]
