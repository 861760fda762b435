"""The error tree: pinned, so that callers may rely on it, and its messages say where and what."""

import pickle

import pytest

from limbeck.contracts import errors
from limbeck.contracts.errors import DataError, Fault, LimbeckError, RecipeError, UnknownNameError

TREE = {
    "LimbeckError": (Exception,),
    "RecipeError": (LimbeckError, ValueError),
    "UnknownNameError": (LimbeckError, LookupError),
    "DataError": (LimbeckError, ValueError),
    "ColumnsError": (DataError,),
    "ImageError": (DataError,),
    "PromptLengthError": (DataError,),
    "LeakError": (DataError,),
    "ArtifactError": (LimbeckError, ValueError),
    "CheckpointError": (errors.ArtifactError,),
    "TrainingError": (LimbeckError, ArithmeticError),
    "LaunchError": (LimbeckError, RuntimeError),
    "EndpointError": (LimbeckError, RuntimeError),
    "TuningError": (LimbeckError, RuntimeError),
    "ParityError": (LimbeckError, ArithmeticError),
    "JournalError": (LimbeckError, RuntimeError),
    "ServingError": (LimbeckError, RuntimeError),
    "QueueFullError": (errors.ServingError,),
    "BudgetError": (errors.QueueFullError,),
    "EngineDownError": (errors.ServingError,),
    "SlowTierError": (errors.EngineDownError,),
    "CircuitOpenError": (errors.EngineDownError,),
    "NoTierError": (errors.ServingError,),
    "RefusedError": (errors.ServingError,),
    "OpenAddressError": (errors.ServingError,),
    "BusyError": (LimbeckError, RuntimeError),
}


def test_tree_is_pinned():
    found = {
        name: thing.__bases__
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert found == TREE


@pytest.mark.parametrize("name", TREE)
def test_tree_is_drawn(name):
    assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "error",
    [
        RecipeError("x.yaml", [Fault("a.b", "is odd", 3)]),
        UnknownNameError("zzz", known=["a"], what="pack"),
        errors.ColumnsError("is odd", found=["a"], path="a.csv", line=2),
        errors.ImageError("is no image", reason="not_an_image", path="a.png"),
        errors.CheckpointError("is cut short"),
    ],
)
def test_errors_are_the_same_in_another_process(error):
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))


def test_recipe_error_lists_every_fault():
    faults = [Fault("a.b", "is odd", 3), Fault("c", "is even")]
    error = RecipeError("x.yaml", faults)
    assert error.faults == tuple(faults)
    assert str(error) == "x.yaml: 2 faults\n  line 3: a.b: is odd\n  c: is even"
    assert str(RecipeError("x.yaml", faults[:1])).startswith("x.yaml: 1 fault\n")


def test_unknown_name_suggests_the_nearest():
    error = UnknownNameError("nxt_token", known=["soft_target", "next_token"], what="objective")
    assert str(error) == (
        "unknown objective 'nxt_token': did you mean 'next_token'? known: next_token, soft_target"
    )


def test_unknown_name_without_a_near_one():
    assert str(UnknownNameError("zzz", known=[], what="pack")) == "unknown pack 'zzz': known: none"


def test_data_error_names_its_place():
    assert str(DataError("is empty", path="a.jsonl", line=7)) == "a.jsonl:7: is empty"
    assert str(DataError("is empty", path="a.jsonl")) == "a.jsonl: is empty"
    assert str(DataError("is empty")) == "is empty"
