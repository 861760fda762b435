"""500 broken inputs: each works, is dropped and counted, or is refused by name and place."""

import os
import random
import shutil
import traceback
from collections import Counter
from pathlib import Path

import pytest
import yaml

from limbeck.contracts.errors import LimbeckError
from tests.support import broken_inputs, broken_sources, tiny_recipe
from tests.support.broken_inputs import KINDS

MEDICAL = tiny_recipe.ROOT / "limbeck" / "packs" / "medical"
LEAST_INPUTS = 500
TIMES = int(os.environ.get("LIMBECK_TEST_TIMES", "1"))
"""How many times as many inputs to try: 1 in every test run, more to hunt for faults."""
found: dict[str, Counter[str]] = {}


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """The medical pack with few diseases, so that a corpus takes a moment."""
    folder = tmp_path_factory.mktemp("pack") / "small"
    (folder / "facts").mkdir(parents=True)
    for name in ("pack.yaml", "questions.yaml"):
        shutil.copy(MEDICAL / name, folder / name)
    for name in ("cardiology.yaml", "dermatology.yaml"):
        chapter = yaml.safe_load((MEDICAL / "facts" / name).read_text(encoding="utf-8"))
        chapter["subjects"] = chapter["subjects"][:3]
        text = yaml.safe_dump(chapter, allow_unicode=True)
        (folder / "facts" / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated(kind, tmp_path, pack):
    count, make = KINDS[kind]
    outcomes: Counter[str] = Counter()
    bugs = []
    for seed in range(count * TIMES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        places, use = make(random.Random(f"{kind} {seed}"), folder, pack)
        try:
            outcome = use()
        except LimbeckError as error:
            outcome = "refused"
            if not any(place in str(error) for place in places):
                bugs.append(f"seed {seed}: names none of {places}: {error!r}")
        except BaseException as error:
            outcome = "bug"
            trace = traceback.extract_tb(error.__traceback__)
            where = [f"{Path(item.filename).name}:{item.lineno}" for item in trace[-6:]]
            bugs.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]} at {where}")
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    found[kind] = outcomes
    assert not bugs, f"{kind}: {dict(outcomes)}\n" + "\n".join(bugs)
    assert set(outcomes) <= {"works", "dropped", "refused"}, outcomes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"missing folder", "typed parquet"}))
def test_what_is_not_broken_works(kind, tmp_path, pack, monkeypatch):
    """Otherwise a refusal above might have another reason than the damage."""

    class Tame(random.Random):
        def random(self):
            return 0.999

    for module in (broken_inputs, broken_sources):
        monkeypatch.setattr(module, "break_file", lambda rng, path: None)
        monkeypatch.setattr(module, "change_value", lambda rng, value: value)
    _, use = KINDS[kind][1](Tame(0), tmp_path, pack)
    assert use() == "works"


def test_enough_of_everything():
    assert sum(count for count, _ in KINDS.values()) >= LEAST_INPUTS
    if set(found) != set(KINDS):
        pytest.skip("only some kinds ran")
    total = sum(found.values(), Counter())
    told = "\n".join(f"{kind}: {dict(outcomes)}" for kind, outcomes in found.items())
    assert total.total() >= LEAST_INPUTS, told
    assert min(total["works"], total["dropped"], total["refused"]) >= 30, told
