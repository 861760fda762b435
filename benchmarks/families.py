"""Every decoder family through every stage: it works, or `check` refuses it before anything runs.

Each family is a tiny random checkpoint with the oddities of the published config. For each stage a
recipe of one entry is checked, and run where it is not refused. A stage that fails although `check`
let it pass is a fault, and the script then ends with status 1.

    python benchmarks/families.py --json benchmarks/results/families.json
    python benchmarks/families.py --family 'Gemma 3' --stage int8

With `--json`, what was not tried stays as the file's last run has it, and the run names what was.
"""

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from reporting import append_run, environment, make_parser, read_runs

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

from tests.support.families import FAMILIES, make_family  # noqa: E402
from tests.support.family_stages import (  # noqa: E402
    FAILED,
    STAGES,
    WORKS,
    try_stage,
    write_data,
)

PAGE = HERE / "docs" / "families.md"
GGUF = ("Llama 3", "Gemma 3")
"""Families of which a GGUF file was read and held against llama.cpp."""


def main() -> None:
    """Fill the table, print it, and write the page and the figures."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--stage", choices=STAGES, action="append")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    families, stages = options.family or list(FAMILIES), options.stage or list(STAGES)
    table: dict[str, dict[str, str]] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder))
        for family in families:
            started = time.perf_counter()
            model = make_family(Path(folder) / "model" / family.replace(" ", "-"), name=family)
            table[family] = {
                stage: try_stage(stage, model=model, data=data, root=Path(folder))
                for stage in stages
            }
            failed += [
                f"{family}: {s}" for s, text in table[family].items() if text.startswith(FAILED)
            ]
            print(f"{family} ({time.perf_counter() - started:.0f} s)")
            for stage, text in table[family].items():
                print(f"  {stage}: {text}")
    if options.json:
        table = (
            merge(read_runs(options.json)[-1]["table"], table) if options.json.exists() else table
        )
        tried = {"families": families, "stages": stages}
        append_run(options.json, {"environment": environment(), "tried": tried, "table": table})
    if list(table) == list(FAMILIES) and all(list(row) == list(STAGES) for row in table.values()):
        PAGE.write_text(render(table), encoding="utf-8")
    if failed:
        raise SystemExit(f"check let pass what fails: {'; '.join(failed)}")


def merge(
    before: Mapping[str, Mapping[str, str]], tried: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """The table of before with what was tried, in the order of families and stages."""
    rows = {family: {**before.get(family, {}), **tried.get(family, {})} for family in FAMILIES}
    return {
        family: {stage: row[stage] for stage in STAGES if stage in row}
        for family, row in rows.items()
        if row
    }


def render(table: Mapping[str, Mapping[str, str]]) -> str:
    """The page: a table of marks, and the sentences that the numbers stand for."""
    stages = list(next(iter(table.values())))
    sentences = list(
        dict.fromkeys(text for row in table.values() for text in row.values() if text != WORKS)
    )
    lines = [
        "# Families and stages",
        "",
        "Which decoder families of transformers go through which stages. Each family was tried as "
        "a tiny random checkpoint",
        "with the oddities of its published config: nothing is said here of how well a stage works "
        "on a model of full size.",
        "A number is a refusal: `limbeck check` gives the sentence below before anything runs. "
        "Made by `python benchmarks/families.py`.",
        "",
        f"| family | load | {' | '.join((*stages, 'GGUF in'))} |",
        f"| --- |{' :-: |' * (2 + len(stages))}",
    ]
    for family, row in table.items():
        marks = ["✓" if t == WORKS else str(1 + sentences.index(t)) for t in row.values()]
        loads = "✓" if WORKS in row.values() else "–"
        marks.append("✓" if family in GGUF else "–")
        lines.append(f"| {family} | {' | '.join([loads, *marks])} |")
    lines += [
        "",
        "– is not tried. GGUF in: SmolLM2 (Llama) and Gemma 3 270M as published. "
        "`export` is to ONNX, `export GGUF` to a GGUF file in float32; settings that it refuses of "
        "a family: [GGUF files](gguf.md#which-models).",
        "Those of Qwen3-MoE, OLMoE and SmolLM3 are of settings of these tiny checkpoints; "
        "the tests write each with those of its published models.",
        "",
    ]
    lines += [f"{number}. {text}" for number, text in enumerate(sentences, start=1)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
