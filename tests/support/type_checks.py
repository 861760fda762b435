"""Which functions of the package check shapes when they are called, and which only types.

The import hook of jaxtyping wraps every function so that its named axes agree within one call. That
binds the arguments and checks them twice, at ten times the cost of beartype alone, and has no
effect where no annotation has a shape. Those functions get beartype alone. The others check their
first calls of each test: a model calls the same function thousands of times with the same shapes.
"""

import functools
import inspect
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from types import CodeType

import jaxtyping

check_shapes = jaxtyping.jaxtyped
MAX_CHECKED_CALLS = 30
"""Of one function within one test."""
_num_calls: Counter[Callable] = Counter()
_num_made: Counter[CodeType | None] = Counter()


def has_shape(annotation: object) -> bool:
    """Whether an annotation holds a shape, or is a text, which may stand for one."""
    if isinstance(annotation, str | typing.ForwardRef):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    return any(map(has_shape, parts))


def check_calls(*, typechecker: Callable) -> Callable:
    """A decorator of functions and classes, in the place of `jaxtyping.jaxtyped`."""

    def decorate(target):
        if "<locals>" in target.__qualname__ and is_often_made(target):
            return target
        function = target.__init__ if inspect.isclass(target) else target
        if any(map(has_shape, inspect.get_annotations(function).values())):
            checked = check_shapes(target, typechecker=typechecker)
            if not inspect.isclass(target):
                return check_first_calls(target, checked)
            checked.__init__ = check_first_calls(function, checked.__init__)
            return checked
        if not inspect.isclass(target):
            return typechecker(target)
        if is_dataclass(target):
            target.__init__ = typechecker(target.__init__)
        return target

    return decorate


def is_often_made(target: Callable) -> bool:
    """Whether this test made so many functions of the same code: a check takes longer to make."""
    code = getattr(target, "__code__", None)
    _num_made[code] += 1
    return code is not None and _num_made[code] > MAX_CHECKED_CALLS


def check_first_calls(function: Callable, checked: Callable) -> Callable:
    """The checked function, and from so many calls of one test on the function itself."""

    @functools.wraps(checked)
    def call(*args, **kwargs):
        if _num_calls[function] >= MAX_CHECKED_CALLS:
            return function(*args, **kwargs)
        _num_calls[function] += 1
        return checked(*args, **kwargs)

    return call


def begin_test() -> None:
    """Has every function check its next calls again."""
    _num_calls.clear()
    _num_made.clear()


def install() -> None:
    """Has the import hook decorate what it imports from now on by `check_calls`."""
    jaxtyping.jaxtyped = check_calls
