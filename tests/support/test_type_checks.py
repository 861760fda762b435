"""What tests check on every call: types everywhere, shapes where annotations have them."""

from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from limbeck.contracts.leaks import normalise
from limbeck.distillation.losses.divergences import forward_kl_terms
from limbeck.evaluation.quality import Estimate
from tests.support.type_checks import MAX_CHECKED_CALLS, begin_test, check_calls


def check(target):
    return check_calls(typechecker=beartype)(target)


def test_named_axes_agree_within_a_call():
    def add(
        left: Float[Tensor, "rows columns"], *others: Float[Tensor, "rows columns"]
    ) -> Float[Tensor, " rows"]:
        return sum(others, left).sum(1)

    add = check(add)
    assert add(torch.ones(2, 3), torch.ones(2, 3)).tolist() == [6, 6]
    with pytest.raises(TypeCheckError):
        add(torch.ones(2, 3), torch.ones(2, 4))


def test_shapes_inside_of_other_types_count():
    def first(values: list[Float[Tensor, " rows"]] | None) -> Float[Tensor, " rows"]:
        return torch.ones(3)

    with pytest.raises(TypeCheckError, match="return value"):
        check(first)([torch.ones(2)])


def test_types_alone_are_checked_too():
    def repeat(text: str, times: int) -> str:
        return text * times if times else times

    repeat = check(repeat)
    assert repeat("a", 2) == "aa"
    for arguments in (("a", "b"), ("a", 0)):
        with pytest.raises(BeartypeCallHintViolation):
            repeat(*arguments)


def test_the_first_calls_of_each_test_are_checked():
    @check
    def double(values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        return 2 * values

    for _ in range(2):
        for _ in range(MAX_CHECKED_CALLS - 1):
            double(torch.ones(2))
        with pytest.raises(TypeCheckError):
            double(torch.ones(2, 2))
        double(torch.ones(2, 2))
        begin_test()


def test_dataclasses_are_checked_when_they_are_made():
    @check
    @dataclass(frozen=True)
    class Plain:
        name: str

    @check
    @dataclass(frozen=True)
    class Pair:
        left: Float[Tensor, " rows"]
        right: Float[Tensor, " rows"]

    assert Plain("a").name == "a" and len(Pair(torch.ones(2), torch.ones(2)).left) == 2
    with pytest.raises(BeartypeCallHintViolation):
        Plain(1)
    with pytest.raises(TypeCheckError):
        Pair(torch.ones(2), torch.ones(3))


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        forward_kl_terms(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(BeartypeCallHintViolation):
        normalise(5)
    with pytest.raises(BeartypeCallHintViolation):
        Estimate("a", 0.0, 1.0, 1)


def test_functions_made_often_by_one_test_are_checked_at_first():
    def make():
        def double(value: int) -> int:
            return 2 * value

        return check(double)

    for _ in range(MAX_CHECKED_CALLS):
        with pytest.raises(BeartypeCallHintViolation):
            make()("a")
    assert make()("a") == "aa"
    begin_test()
    with pytest.raises(BeartypeCallHintViolation):
        make()("a")
