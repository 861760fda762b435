"""Families through stages: what `check` lets pass works, and the committed table says the same."""

import importlib.util
import json

import pytest

from tests.support import tiny_recipe
from tests.support.families import FAMILIES, make_family
from tests.support.family_stages import STAGES, WORKS, check_stage, try_stage, write_data

TABLE = tiny_recipe.ROOT / "benchmarks" / "results" / "families.json"
RUN = ("distil from", "prune channels", "prune heads", "export")
"""Stages that the default run tries; `benchmarks/families.py` tries all, on all families."""
CHECKED = ("prune channels", "prune heads", "export", "export GGUF")
"""Stages that differ most by family."""
ODD = (
    *("Qwen3-Next", "Mistral", "OLMoE", "DeepSeek-V3", "Phi-4 mini"),
    *("GLM-4", "gpt-oss", "SmolLM3", "GPT-2"),
)
"""Families that differ most from each other."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def data(root):
    return write_data(root)


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text(encoding="utf-8"))["runs"][-1]["table"]


@pytest.mark.parametrize("family", ["Gemma 3", "Phi-3"])
def test_what_check_lets_pass_works(family, root, data, table):
    model = make_family(root / family.replace(" ", "-"), name=family)
    tried = {stage: try_stage(stage, model=model, data=data, root=root) for stage in RUN}
    assert tried == {stage: table[family][stage] for stage in RUN}


def test_check_refuses_what_the_table_excludes(root, data, table):
    assert list(table) == list(FAMILIES)
    assert all(list(row) == list(STAGES) for row in table.values())
    for family in ODD:
        model = make_family(root / f"checked-{family.replace(' ', '-')}", name=family)
        for stage in CHECKED:
            refusal = check_stage(stage, model=model, data=data, root=root)
            assert (refusal or WORKS) == table[family][stage], (family, stage)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(tiny_recipe.ROOT / "benchmarks")
    path = tiny_recipe.ROOT / "benchmarks" / "families.py"
    spec = importlib.util.spec_from_file_location("families", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_table(table, script):
    page = (tiny_recipe.ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert page == script.render(table), "run: python benchmarks/families.py --json ..."


def test_what_was_not_tried_stays(table, script):
    merged = script.merge(table, {"Qwen2": {"export": "refused"}})
    assert list(merged) == list(FAMILIES)
    assert list(merged["Qwen2"]) == list(STAGES)
    assert merged["Qwen2"] == {**table["Qwen2"], "export": "refused"}
    assert {**merged, "Qwen2": table["Qwen2"]} == table
    assert script.merge({}, {"Qwen2": {"export": WORKS}}) == {"Qwen2": {"export": WORKS}}
