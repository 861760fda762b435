"""The space that is searched where a recipe names none."""

import json

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
    assert (found["objective.temperature"].low, found["objective.temperature"].high) == (1.0, 3.0)


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
        ({"targets": {"kind": "top"}}, (1.0, 3.0)),
        ({"targets": {"kind": "sampled"}}, (1.0, 3.0)),
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


def test_the_default_space_begins_with_the_recipes_own_layer_map(corpus, tmp_path):
    objective = {"kind": "soft_target", "matching": [{"student_layer": 2, "teacher_layer": 2}]}
    loaded = load_recipe(make_recipe(tmp_path, corpus, tune={"trials": 1}, objective=objective))
    space = make_space(loaded, read_tuning(loaded), check(loaded))
    own = space.starts[0]
    assert set(own) == {
        "objective.temperature",
        "objective.divergence",
        "objective.weight",
        "training.learning_rate",
        "objective.matching",
        "objective.matching.*.weight",
    }
    assert own["objective.matching.*.weight"] == 1.0
    assert json.loads(own["objective.matching"])[0]["student_layer"] == 2


def test_what_tables_support_is_tried_first_as_far_as_it_is_searched(corpus, tmp_path):
    starts = find_starts(tmp_path, corpus, tune={})
    changed = [{key: item[key] for key in item if item[key] != starts[0][key]} for item in starts]
    assert changed == [{}, *({key: value} for key, value in BUILT_IN)]
    low = {"search": {"objective.weight": {"low": 0.3, "high": 0.9}}}
    assert [item["objective.weight"] for item in find_starts(tmp_path, corpus, tune=low)] == [
        0.7,
        0.5,
    ]
    assert len(find_starts(tmp_path, corpus, tune={"start_from": []})) == 1


BUILT_IN = [
    ("objective.temperature", 1.0),
    ("objective.weight", 0.5),
    ("objective.weight", 0.0),
]


def find_starts(folder, corpus, *, tune):
    loaded = load_recipe(make_recipe(folder, corpus, tune={"trials": 1} | tune))
    return make_space(loaded, read_tuning(loaded), check(loaded)).starts


def test_a_recipe_outside_its_own_space_is_still_where_the_search_begins(corpus, tmp_path):
    tune = {
        "search": {
            "objective.weight": {"low": 0.8, "high": 0.9},
            "training.learning_rate": {"low": 0.01, "high": 0.03},
        }
    }
    assert find_starts(tmp_path, corpus, tune=tune) == ({"training.learning_rate": 0.02},)


def test_each_seed_of_an_entry_is_shifted(corpus, tmp_path):
    loaded = load_recipe(make_recipe(tmp_path, corpus, tune={"trials": 1}, seed=5))
    space = make_space(loaded, read_tuning(loaded), check(loaded))
    entry = space.reseed(None, shift=2)
    assert (entry["seed"], entry["training"]["seed"], entry["batching"]["seed"]) == (7, 2, 2)
    written = {key: entry[key] for key in space.written if key not in ("training", "batching")}
    assert written | {"seed": 5} == {
        key: value for key, value in space.written.items() if key not in ("training", "batching")
    }
    sampled = space.reseed(space.starts[1] | {"objective.matching.*.weight": 1.0}, shift=1)
    assert (sampled["objective"]["temperature"], sampled["seed"]) == (1.0, 6)
