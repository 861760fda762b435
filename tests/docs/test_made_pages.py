"""Pages and figures that are made from the code or from the committed report are up to date."""

import importlib.util
import re

import pytest

from limbeck.contracts.registry import TABLES
from tests.support.documentation import ROOT


def load(path):
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    return load(ROOT / "docs" / "reference" / "make.py").make_pages()


def test_the_field_reference_is_what_the_code_gives(pages):
    folder = ROOT / "docs" / "reference"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert committed == pages, "run: python docs/reference/make.py"


def test_the_field_reference_names_everything(pages):
    for name, table in TABLES.items():
        for key in table:
            assert f"\n## {key}\n" in pages[f"{name}.md"]


def test_the_demos_numbers_are_those_of_its_report():
    made = load(ROOT / "docs" / "figures" / "make.py").make_files()
    assert len(made) == 4
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run: python docs/figures/make.py"
        assert "demo headline" in text or path.suffix == ".svg"


def test_the_pruning_curves_are_those_of_their_result():
    for path, text in load(ROOT / "docs" / "figures" / "make_pruning.py").make_files().items():
        assert path.read_text(encoding="utf-8") == text, "run: python docs/figures/make_pruning.py"


def test_the_readmes_have_one_structure():
    """A section that one language lacks would be forgotten."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
    marks = [re.findall(r"^#+", text, flags=re.MULTILINE) for text in texts]
    assert marks[0] == marks[1]
    for text in texts:
        assert text.count("\n") <= 130
