"""The text below each field of a configuration, as the reference pages print it.

Pydantic would read these texts whenever a class is made, which takes a fourth of `limbeck check`.
Read here, from the source, they cost only those who want them.
"""

import ast
import inspect
import textwrap

from limbeck.contracts.config import Config


def read_field_texts(config: type[Config]) -> dict[str, str]:
    """The docstring below each field, '' where it has none, inherited fields included."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not issubclass(base, Config):
            continue
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(defined, ast.ClassDef)
        following = (*defined.body[1:], None)
        for node, below in zip(defined.body, following, strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                texts[node.target.id] = _read_docstring(below)
    return texts


def _read_docstring(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text)
    return ""
