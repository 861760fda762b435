"""Compares what two checkouts make of the test recipes, file by file.

    python tests/golden/compare_artifacts.py OLD NEW [--recipe tiny ...]

Each checkout runs its own `recipes/tests/*.yaml` in processes of its own, on one thread. A refactor
must leave every tensor and every record equal to the byte; stored JSON may have keys that were
renamed or added, named below, and hashes of such files. Exits with 1 and names what else differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.support.artifacts import draw_discs

RECIPES = ("tiny", "features", "progressive", "vision")
MEASURED = {"manifest.json", "report.json", "report.html", "report.md", "card.html"}
"""Files that hold times, paths or versions, and pages for people."""
RENAMED = {
    "normalize_gate": "norm_topk_prob",
    "merge": "spatial_merge_size",
    "max_tokens": "max_length",
    "batch_records": "per_device_train_batch_size",
    "accumulation_steps": "gradient_accumulation_steps",
    "manner": "answer_format",
    "diseases": "subjects",
}
"""Keys of stored JSON, old to new."""
ADDED = {
    "disclaimer",
    "min_confidence_ratio",
    "headline_tasks",
    "tasks",
    "record_ids",
    "changed",
    "changed_examples",
    "dropped_examples",
    "confidence",
}
"""Keys that are new or no longer made unasked: the texts of a domain's pack, the records that
signals cover, what a data card says of changes and of a classifier."""
ADDED_FILES = {"record_ids.npy"}
NESTED = "runtime_settings"
"""Where a bundle keeps what only its runtime reads; once beside the other keys."""
DERIVED = {"corpus_hash", "teacher_hash", "signals", "sha256", "_name_or_path"}
"""Hashes of files with renamed keys, and the folder that a model was read from."""
SAME_VALUES = {"picked": True, "none": False}
"""Values of `normalize_gate` as `norm_topk_prob` has them."""


def run(checkout: Path, recipe: str, *, runs: Path, images: Path) -> None:
    """Run one test recipe of a checkout."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "LIMBECK_TEST_IMAGES": str(images),
    }
    command = [sys.executable, "-m", "limbeck.cli", "run", f"recipes/tests/{recipe}.yaml"]
    subprocess.run([*command, "--runs", str(runs)], cwd=checkout, env=environment, check=True)


def fingerprints(folder: Path) -> dict[str, str]:
    """Every file of every artifact, by its path, with a hash of what it means."""
    found = {}
    for manifest in sorted(folder.glob("*/*/manifest.json")):
        artifact = manifest.parent
        if artifact.parent.name == "store":
            continue
        for path in sorted(artifact.rglob("*")):
            if path.is_file() and path.name not in MEASURED | ADDED_FILES:
                name = path.relative_to(folder).as_posix()
                found[name] = _fingerprint(path)
    return found


def _fingerprint(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        data = b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))
    elif path.suffix == ".json":
        data = json.dumps(_rename(json.loads(data)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _rename(value: Any) -> Any:
    if isinstance(value, dict):
        value = value | value.get(NESTED, {})
        kept = {k: item for k, item in value.items() if k not in ADDED | DERIVED | {NESTED}}
        return {RENAMED.get(key, key): _value(key, item) for key, item in kept.items()}
    return [_rename(item) for item in value] if isinstance(value, list) else value


def _value(key: str, item: Any) -> Any:
    return SAME_VALUES.get(item, item) if key == "normalize_gate" else _rename(item)


def compare(old: Path, new: Path) -> list[str]:
    """What differs between two folders of runs."""
    before, after = fingerprints(old), fingerprints(new)
    return [
        *(f"gone: {name}" for name in sorted(before.keys() - after.keys())),
        *(f"new: {name}" for name in sorted(after.keys() - before.keys())),
        *(f"differs: {n}" for n in sorted(before.keys() & after.keys()) if before[n] != after[n]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path, help="a checkout, or a folder of its runs")
    parser.add_argument("new", type=Path, help="a checkout, or a folder of its runs")
    parser.add_argument("--recipe", nargs="*", default=RECIPES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = draw_discs(Path(folder) / "discs.npz")
        sides = []
        for side in (arguments.old, arguments.new):
            runs = side
            if (side / "recipes").is_dir():
                runs = Path(folder) / f"runs-{len(sides)}"
                for recipe in arguments.recipe:
                    run(side.resolve(), recipe, runs=runs, images=images)
            sides.append(runs)
        count = len(fingerprints(sides[1]))
        differences = compare(*sides)
    print("\n".join(differences) or f"{count} files are equal")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
