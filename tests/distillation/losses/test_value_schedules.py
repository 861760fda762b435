"""Settings that move over training, and what of them `soft_target` refuses."""

import pytest
from pydantic import ValidationError

from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.losses.value_schedules import Schedule, value_at


@pytest.mark.parametrize(
    ("shape", "over", "progress", "value"),
    [
        ("linear", 1.0, 0.0, 3.0),
        ("linear", 1.0, 0.25, 2.5),
        ("linear", 0.5, 0.25, 2.0),
        ("linear", 0.5, 0.9, 1.0),
        ("cosine", 1.0, 0.5, 2.0),
        ("cosine", 1.0, 1 / 3, 2.5),
        ("cosine", 0.5, 0.5, 1.0),
    ],
)
def test_a_value_moves_from_one_to_the_other(shape, over, progress, value):
    schedule = Schedule.model_validate({"from": 3.0, "to": 1.0, "shape": shape, "over": over})
    assert value_at(schedule, progress=progress) == pytest.approx(value)


def test_a_number_stays():
    assert value_at(2.5, progress=0.7) == 2.5


def test_a_recipe_reads_schedules_and_a_copy_keeps_them():
    config = SoftTarget.model_validate(
        {
            "kind": "soft_target",
            "temperature": {"from": 4, "to": 1},
            "weight": {"from": 0.9, "to": 0.5, "shape": "cosine", "over": 0.8},
        }
    )
    assert config.temperature == Schedule.model_validate({"from": 4.0, "to": 1.0})
    assert (config.needs().temperature, config.needs().max_temperature) == (1.0, 4.0)
    assert config.replace(weight=1.0).temperature == config.temperature
    assert SoftTarget.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("temperature", 0, "temperature 0.0 must stay above 0"),
        ("temperature", -1.5, "temperature -1.5 must stay above 0"),
        ("temperature", {"from": 2, "to": 0}, "temperature 2.0 to 0.0 must stay above 0"),
        ("temperature", float("nan"), "temperature nan must stay above 0"),
        ("temperature", float("inf"), "temperature inf must stay above 0"),
        ("weight", 1.5, "weight 1.5 must stay between 0 and 1"),
        ("weight", {"from": 0.5, "to": -0.1}, "weight 0.5 to -0.1 must stay between 0 and 1"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(field, value, words):
    with pytest.raises(ValidationError, match=words):
        SoftTarget.model_validate({"kind": "soft_target", field: value})
