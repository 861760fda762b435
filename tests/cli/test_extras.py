"""What is imported is declared, and each extra brings the libraries that it stands for."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from limbeck.cli.console import EXTRAS

ROOT = Path(__file__).parents[2]
OWNERS = functools.cache(importlib.metadata.packages_distributions)
"""Which distributions bring a library: reads the file lists of everything that is installed."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distributions(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_library_that_is_imported_is_declared() -> None:
    imported: set[str] = set()
    for path in (ROOT / "limbeck").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    owners = OWNERS()
    declared = distributions(PROJECT["dependencies"])
    for name in imported - set(sys.stdlib_module_names) - {"limbeck"} - set(EXTRAS):
        assert {normal(owner) for owner in owners[name]} & (declared | {"pydantic-core"}), name


@pytest.mark.parametrize("library", sorted(set(EXTRAS) - {"deepspeed"}))
def test_the_extra_of_a_library_installs_it(library: str) -> None:
    owners = OWNERS()[library]
    brought = distributions(PROJECT["optional-dependencies"][EXTRAS[library]])
    assert {normal(owner) for owner in owners} & brought
