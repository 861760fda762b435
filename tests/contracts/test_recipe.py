"""Recipes load with the line of every key, take overrides, and tell every fault at once."""

import pytest

from limbeck.contracts.errors import RecipeError
from limbeck.contracts.recipe import load_recipe

TEXT = """\
corpus:
  stage: prepare
  sources:
    - {kind: jsonl, path: a.jsonl}
    - kind: csv
      path: b.csv
student:
  stage: train
  training:
    max_steps: 4
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def faults(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.faults


def test_entries_and_lines(write):
    recipe = load_recipe(write(TEXT))
    assert recipe.name == "recipe"
    assert list(recipe.entries) == ["corpus", "student"]
    assert recipe.line("corpus") == 1
    assert recipe.line("corpus", "sources", 0, "path") == 4
    assert recipe.line("corpus", "sources", 1, "path") == 6
    assert recipe.line("student", "training", "max_steps") == 10


def test_line_of_an_unknown_key_is_that_of_its_parent(write):
    recipe = load_recipe(write(TEXT))
    assert recipe.line("student", "training", "lr") == 9
    assert recipe.line("teacher", "training") == 0


@pytest.mark.parametrize(
    ("text", "where", "message", "line"),
    [
        ("a: [1, 2\n", "recipe", "is not YAML", 2),
        ("a:\n  stage: x\n b: 3\n", "recipe", "is not YAML", 3),
        ("", "recipe", "expected a mapping of entries, found NoneType", 1),
        ("- a\n- b\n", "recipe", "expected a mapping of entries, found list", 1),
        ("just text", "recipe", "expected a mapping of entries, found str", 1),
        ("a: {stage: x}\n9b: {stage: y}\n", "9b", "an entry's name must be", 2),
        ("a: {stage: x}\n3: {stage: y}\n", "3", "an entry's name must be", 2),
        ("a: {stage: x}\nb: 7\n", "b", "expected a mapping with a key 'stage', found 7", 2),
        (b"a: \xff\xfe", "recipe", "is not UTF-8", 0),
        ("a: {stage: x}\na: {stage: y}\n", "a", "stands in the recipe twice", 2),
        ("a:\n  stage: x\n  seed: 1\n  seed: 2\n", "a.seed", "stands in the recipe twice", 4),
        ("a: &x {stage: x, b: *x}\n", "a.b", "an alias that holds itself", 1),
    ],
)
def test_misshapen(write, text, where, message, line):
    (fault,) = faults(write(text))
    assert fault.where == where
    assert message in fault.message
    assert fault.line == line


def test_every_misshapen_entry_is_reported(write):
    found = faults(write("1a: {}\nb: 2\nc: {stage: x}\nd: []\n"))
    assert [(fault.where, fault.line) for fault in found] == [("1a", 1), ("b", 2), ("d", 4)]


def test_missing_file_names_its_neighbours(write, tmp_path):
    near = write(TEXT, "near.yaml")
    (fault,) = faults(tmp_path / "absent.yaml")
    assert "no such file" in fault.message
    assert str(near) in fault.message


def test_override_of_nested_fields_and_lists(write):
    recipe = load_recipe(
        write(TEXT),
        overrides=[
            "student.training.max_steps=9",
            "student.training.learning_rate=1e-3",
            "student.model={kind: dense, hidden_size: 16}",
            "student.model.hidden_size=32",
            "corpus.sources.1.path=c.csv",
            "corpus.sources.0={kind: parquet, path: d}",
        ],
    )
    assert recipe.entries["student"]["training"]["max_steps"] == 9
    assert recipe.entries["student"]["model"] == {"kind": "dense", "hidden_size": 32}
    assert recipe.entries["corpus"]["sources"] == [
        {"kind": "parquet", "path": "d"},
        {"kind": "csv", "path": "c.csv"},
    ]


def test_a_later_override_wins(write):
    recipe = load_recipe(write(TEXT), overrides=["student.seed=1", "student.seed=2"])
    assert recipe.entries["student"]["seed"] == 2


def test_override_does_not_reach_through_an_alias(write):
    text = "a: {stage: x, training: &t {max_steps: 4}}\nb: {stage: y, training: *t}\n"
    recipe = load_recipe(write(text), overrides=["b.training.max_steps=9"])
    assert recipe.entries["a"]["training"]["max_steps"] == 4
    assert recipe.entries["b"]["training"]["max_steps"] == 9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.training.max_steps", "expected entry.field=value"),
        ("student=3", "expected entry.field=value"),
        ("student..steps=3", "expected entry.field=value"),
        ("studnet.training.max_steps=3", "no entry 'studnet'; entries: corpus, student"),
        ("student.stage.deeper=3", "'student.stage' holds 'train', which has no field 'deeper'"),
        ("corpus.sources.2.path=x", "'corpus.sources' is a list of 2; '2' is no index"),
        ("corpus.sources.first.path=x", "'first' is no index"),
        ("student.seed=[1,", "the value is not YAML"),
    ],
)
def test_wrong_override(write, override, message):
    (fault,) = faults(write(TEXT), override)
    assert fault.where == f"--set {override}"
    assert message in fault.message


def test_every_wrong_override_is_reported(write):
    assert len(faults(write(TEXT), "a.b=1", "student", "student.seed=1")) == 2


def test_variables(write, monkeypatch):
    monkeypatch.setenv("LIMBECK_TEST_FOLDER", "/data")
    monkeypatch.delenv("LIMBECK_TEST_OTHER", raising=False)
    text = (
        "a:\n  path: ${LIMBECK_TEST_FOLDER}/x\n"
        "  other: ['${LIMBECK_TEST_OTHER:-fall/back}/y', plain]\n"
    )
    recipe = load_recipe(write(text))
    assert recipe.entries["a"] == {"path": "/data/x", "other": ["fall/back/y", "plain"]}


def test_variable_that_is_not_set(write, monkeypatch):
    monkeypatch.delenv("LIMBECK_TEST_OTHER", raising=False)
    (fault,) = faults(write("a:\n  stage: x\n  path: ${LIMBECK_TEST_OTHER}/x\n"))
    assert fault.where == "a.path"
    assert fault.line == 3
    assert "LIMBECK_TEST_OTHER is not set" in fault.message


def test_variable_may_fall_back_to_nothing(write, monkeypatch):
    monkeypatch.delenv("LIMBECK_TEST_OTHER", raising=False)
    recipe = load_recipe(write("a: {path: 'x${LIMBECK_TEST_OTHER:-}'}\n"))
    assert recipe.entries["a"]["path"] == "x"
