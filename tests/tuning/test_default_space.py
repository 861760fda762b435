"""The space that is searched where a recipe names none."""

import pytest
import yaml

from limbeck.contracts.errors import RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.pipeline.check import check
from limbeck.tuning import make_space, read_tuning
from tests.support.searches import make_corpus, make_recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tuning") / "corpus")


def test_the_default_space_holds_the_named_layer_maps(corpus, tmp_path):
    loaded = load_recipe(make_recipe(tmp_path, corpus, tune={"trials": 1}))
    found = make_space(loaded, read_tuning(loaded), check(loaded)).distributions
    maps = ["[]", '[{"layers": "last"}]', '[{"layers": "uniform"}]']
    assert list(found["objective.matching"].choices) == maps
    assert (found["objective.temperature"].low, found["objective.temperature"].high) == (1.5, 3.0)


def make_default(folder, corpus, *, targets=None, metric="likelihood", **student):
    """The axes of the default space; `targets` are of signals that the recipe records."""
    path = make_recipe(folder, corpus, tune={"trials": 1, "metric": metric}, **student)
    if targets is not None:
        recorded = {"stage": "record", "teacher": "teacher", "corpus": str(corpus)} | targets
        written = yaml.safe_load(path.read_text()) | {"signals": recorded}
        path.write_text(yaml.safe_dump(written, allow_unicode=True, sort_keys=False))
    loaded = load_recipe(path)
    return make_space(loaded, read_tuning(loaded), check(loaded)).distributions


@pytest.mark.parametrize(
    ("targets", "temperatures"),
    [
        ({"targets": {"kind": "plain", "temperatures": [1.0, 2.0, 4.0]}}, [1.0, 2.0, 4.0]),
        ({"targets": {"kind": "plain", "temperatures": [2.0, 3.0]}}, [2.0, 3.0]),
        ({"targets": {"kind": "plain", "temperatures": [2.0]}}, None),
        ({"targets": {"kind": "top"}}, (1.5, 3.0)),
        ({"targets": {"kind": "sampled"}}, (1.5, 3.0)),
    ],
)
def test_recorded_signals_are_searched_at_what_they_can_give(
    corpus, tmp_path, targets, temperatures
):
    found = make_default(tmp_path, corpus, targets=targets, teacher="signals")
    assert "objective.matching" not in found
    axis = found.get("objective.temperature")
    if isinstance(temperatures, list):
        assert list(axis.choices) == temperatures
    elif temperatures:
        assert (axis.low, axis.high) == temperatures
    else:
        assert axis is None


def test_several_teachers_are_searched_at_what_all_can_give(corpus, tmp_path):
    targets = {"targets": {"kind": "plain", "temperatures": [1.0, 2.0, 4.0]}}
    found = make_default(tmp_path, corpus, targets=targets, teacher=["teacher", "signals"])
    assert not any(path.startswith("objective.matching") for path in found)
    assert list(found["objective.temperature"].choices) == [1.0, 2.0, 4.0]


def test_a_labelled_corpus_is_searched_at_its_own_temperature_and_asked_nothing(corpus, tmp_path):
    found = make_default(tmp_path, corpus, teacher=str(corpus))
    assert list(found) == ["objective.weight", "objective.divergence", "training.learning_rate"]
    with pytest.raises(RecipeError, match="a labelled corpus; set `metric: likelihood`"):
        make_default(tmp_path, corpus, teacher=str(corpus), metric="kept_accuracy")


@pytest.mark.parametrize("field", ["temperature", "weight"])
def test_a_schedule_of_the_recipe_is_not_searched(corpus, tmp_path, field):
    objective = {"kind": "soft_target", field: {"from": 0.9, "to": 0.5}}
    found = make_default(tmp_path, corpus, objective=objective)
    assert {"temperature", "weight"} - {path.split(".")[1] for path in found} == {field}
