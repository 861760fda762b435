"""Which functions of the package check shapes when they are called, and which only types.

The import hook of jaxtyping wraps every function so that its named axes agree within one call. That
binds the arguments and checks them twice, at ten times the cost of beartype alone, and has no
effect where no annotation has a shape. Those functions get beartype alone.
"""

import inspect
import typing
from collections.abc import Callable
from dataclasses import is_dataclass

import jaxtyping

check_shapes = jaxtyping.jaxtyped


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
        function = target.__init__ if inspect.isclass(target) else target
        if any(map(has_shape, inspect.get_annotations(function).values())):
            return check_shapes(target, typechecker=typechecker)
        if not inspect.isclass(target):
            return typechecker(target)
        if is_dataclass(target):
            target.__init__ = typechecker(target.__init__)
        return target

    return decorate


def install() -> None:
    """Has the import hook decorate what it imports from now on by `check_calls`."""
    jaxtyping.jaxtyped = check_calls
