"""Configs refuse what they do not know, and tables name what they offer."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from limbeck.contracts.config import Choice, Config, resolve
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.field_texts import read_field_texts
from limbeck.contracts.registry import TABLES
from limbeck.models.config import DenseModel, MoeModel

TABLE = {
    "dense": "limbeck.models.config:DenseModel",
    "moe": "limbeck.models.config:MoeModel",
    "errors": "limbeck.contracts.errors",
}
DENSE = {
    "kind": "dense",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 32,
}


class Inner(Config):
    path: Path = Path("inner")


class Outer(Config):
    count: int = 1
    files: tuple[Inner, ...] = ()
    folder: Path = Path("folder")


class Chooser(Config):
    model: Annotated[DenseModel | MoeModel, Choice(TABLE, what="model")]


def test_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="unknown key 'cuont': did you mean 'count'"):
        Outer.model_validate({"cuont": 2})


def test_an_error_in_an_item_is_no_second_error_of_its_list():
    class Several(Config):
        files: Annotated[tuple[Inner, ...], Field(min_length=1)]

    with pytest.raises(ValidationError) as caught:
        Several.model_validate({"files": [{"pth": "a"}]})
    assert [item["loc"] for item in caught.value.errors()] == [("files", 0, "pth")]
    with pytest.raises(ValidationError, match="at least 1 item"):
        Several.model_validate({"files": []})


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().count = 2


def test_replace_validates_again():
    assert Outer().replace(count=3).count == 3
    with pytest.raises(ValidationError):
        Outer().replace(count="three")
    with pytest.raises(ValidationError):
        Outer().replace(cuont=3)


def test_field_docstrings_are_their_texts():
    from limbeck.models.config import DenseModel
    from limbeck.training.config import TrainingConfig

    assert "Optimizer steps" in read_field_texts(TrainingConfig)["max_steps"]
    texts = read_field_texts(DenseModel)
    assert set(DenseModel.model_fields) <= set(texts)
    assert texts["hidden_size"] == "Width of the residual stream."  # inherited
    assert texts["num_hidden_layers"] == ""


def test_external_paths_are_found_at_any_depth():
    outer = Outer(files=(Inner(path=Path("a")), Inner(path=Path("b"))), folder=Path("c"))
    assert list(outer.external_paths()) == [Path("a"), Path("b"), Path("c")]


def test_choice_builds_the_named_config():
    from limbeck.models.config import DenseModel

    built = Chooser.model_validate({"model": DENSE}).model
    assert isinstance(built, DenseModel)
    again = Chooser.model_validate({"model": built}).model
    assert again is built
    assert Chooser.model_validate(Chooser(model=built).model_dump()).model == built


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "dens"}, "unknown model 'dens': did you mean 'dense'?"),
        ({"kind": 3}, "expected a mapping with a key 'kind', one of dense, errors, moe"),
        ({}, "expected a mapping with a key 'kind'"),
        ("dense", "expected a mapping with a key 'kind'"),
    ],
)
def test_choice_names_what_it_expected(value, message):
    with pytest.raises(ValidationError) as caught:
        Chooser.model_validate({"model": value})
    assert message in str(caught.value)


def test_choice_refuses_unknown_keys_inside():
    with pytest.raises(ValidationError):
        Chooser.model_validate({"model": {**DENSE, "num_expert": 4}})


def test_resolve():
    import limbeck.contracts.errors

    assert resolve(TABLE, "errors", what="part") is limbeck.contracts.errors
    with pytest.raises(UnknownNameError, match="unknown part 'eror': did you mean 'errors'"):
        resolve(TABLE, "eror", what="part")


@pytest.mark.parametrize("table", TABLES)
def test_every_listed_name_exists_and_is_documented(table):
    found = TABLES[table]
    for name in found:
        assert resolve(found, name, what="entry").__doc__, name


def test_an_error_of_pydantics_own_validators_is_shown():
    class Item(Config):
        path: Path

    class Holder(Config):
        items: tuple[Item, ...]

    with pytest.raises(ValidationError, match="not a valid path") as caught:
        Holder.model_validate({"items": [{"path": 5}]})
    assert caught.value.errors()[0]["loc"] == ("items", 0, "path")
