"""`limbeck list`: what a recipe can name, each with the first line of its documentation.

The lines are read from the source files: importing everything that can be named takes seconds.
"""

import ast
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import limbeck
from limbeck.cli.console import AsJson, print_json, report_user_errors
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.registry import TABLES
from limbeck.packs import describe_packs

PACKS = "packs"


def list_command(
    what: Annotated[
        str, typer.Argument(help="objectives, criteria, runtimes, sources, tasks, packs, ...")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List what a recipe can name, each with one line; the fields are in docs/reference.

    ```
    limbeck list
    limbeck list objectives
    ```
    """
    with report_user_errors():
        found = list_names(what)
        if as_json:
            print_json(found)
        else:
            Console().print(draw_names(found))


def list_names(what: str) -> dict[str, dict[str, str]]:
    """Names of one table, or of all, each with the first line of its documentation.

    Raises:
        UnknownNameError: there is no such table.
    """
    known = (*TABLES, PACKS)
    if what and what not in known:
        raise UnknownNameError(what, known=known, what="list")
    return {name: _describe(name) for name in ([what] if what else known)}


def _describe(name: str) -> dict[str, str]:
    if name == PACKS:
        return describe_packs()
    return {key: first_line(target) for key, target in TABLES[name].items()}


def first_line(target: str) -> str:
    """The first line of the docstring of `package.module:Object`."""
    module, _, name = target.partition(":")
    package, *rest = module.split(".")
    if package != limbeck.__name__:  # an extension's: its source may lie anywhere
        found = resolve({target: target}, target, what="object")
        return (inspect.getdoc(found) or "").split("\n", 1)[0]
    path = Path(*limbeck.__path__, *rest)
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if not name:
        return _summary(tree)
    defined = (ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in tree.body if isinstance(node, defined) and node.name == name]
    return _summary(nodes[0]) if nodes else ""


def _summary(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n", 1)[0]


def draw_names(found: Mapping[str, Mapping[str, str]]) -> Table:
    """The lists as one table."""
    table = Table("list", "name", "what it is", box=None, header_style="bold")
    for what, names in found.items():
        for name, text in names.items():
            table.add_row(what, name, text)
    return table
