"""One stage tried on one checkpoint: refused by `check`, or run for a step."""

import json
from collections.abc import Mapping
from pathlib import Path

from limbeck.contracts.errors import RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.pipeline.check import check
from limbeck.pipeline.run import run

WORKS = "works"
FAILED = "FAILED"
BATCHES = (
    "batching: {per_device_train_batch_size: 2, gradient_accumulation_steps: 1, max_length: 64}"
)
FEW = f"{BATCHES}, training: {{max_steps: 1, learning_rate: 0.001}}"
STUDENT = (
    "{kind: dense, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, "
    "num_key_value_heads: 2, head_dim: 16, intermediate_size: 32}"
)
SOFT, PLAIN = "objective: {kind: soft_target}", "objective: {kind: next_token}"
STAGES: Mapping[str, str] = {
    "train": f"{{stage: train, corpus: corpus, model: '@', {PLAIN}, {FEW}}}",
    "record": "{stage: record, corpus: corpus, teacher: '@', batching: {max_length: 64}}",
    "distil from": (
        f"{{stage: distill, corpus: corpus, teacher: '@', student: {STUDENT}, {SOFT}, {FEW}}}"
    ),
    "distil into": (
        f"{{stage: distill, corpus: corpus, teacher: '@', student: '@', {SOFT}, {FEW}}}"
    ),
    "inherit": (
        f"{{stage: train, corpus: corpus, model: {STUDENT}, initialize_from: '@', {PLAIN}, {FEW}}}"
    ),
    "prune channels": (
        f"{{stage: prune, corpus: corpus, checkpoint: '@', channels_ratio: 0.25, {FEW}}}"
    ),
    "prune heads": (
        "{stage: prune, corpus: corpus, checkpoint: '@', channels_ratio: 0, heads_ratio: 0.5, "
        f"{FEW}}}"
    ),
    "prune layers": (
        "{stage: prune, corpus: corpus, checkpoint: '@', channels_ratio: 0, layers_ratio: 0.34, "
        f"{BATCHES}, calibration_batches: 1}}"
    ),
    "prune width": (
        "{stage: prune, corpus: corpus, checkpoint: '@', channels_ratio: 0, hidden_ratio: 0.25, "
        f"{BATCHES}, calibration_batches: 1}}"
    ),
    "int8": (
        f"{{stage: quantize, corpus: corpus, checkpoint: '@', scheme: {{kind: int8}}, {PLAIN}, "
        f"calibration: {{num_questions: 4, max_new_tokens: 2}}, {FEW}}}"
    ),
    "export": "{stage: export, checkpoint: '@'}",
    "export GGUF": "{stage: export, checkpoint: '@', runtime: gguf}",
    "LoRA": f"{{stage: train, corpus: corpus, model: '@', lora: {{rank: 2}}, {PLAIN}, {FEW}}}",
    "evaluate": (
        "{stage: evaluate, corpus: corpus, models: ['@'], max_questions: 3, max_new_tokens: 3, "
        "floors: [], profile: {questions: 1, rounds: 1, thread_counts: [1]}}"
    ),
}


def write_data(folder: Path) -> Path:
    """A file of questions with answers."""
    path = folder / "data.jsonl"
    rows = [{"question": f"what is {n} and {n}?", "answer": f"it is {2 * n}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(stage: str, *, model: Path, data: Path, root: Path) -> Path:
    """A recipe of a corpus and one stage that reads the checkpoint."""
    path = root / f"{model.name}.yaml"
    path.write_text(
        f"corpus: {{stage: prepare, tokenizer: '{model}', splits: {{test_ratio: 0.2}}, "
        f"sources: [{{kind: jsonl, path: '{data}'}}]}}\n"
        f"made: {STAGES[stage].replace('@', str(model))}\n",
        encoding="utf-8",
    )
    return path


def check_stage(stage: str, *, model: Path, data: Path, root: Path) -> str:
    """The sentence with which `check` refuses; '' where it does not."""
    recipe = load_recipe(write_recipe(stage, model=model, data=data, root=root))
    try:
        check(recipe)
    except RecipeError as error:
        return error.faults[0].message.removeprefix(f"{model}: ")
    return ""


def try_stage(stage: str, *, model: Path, data: Path, root: Path) -> str:
    """`works`, the sentence with which `check` refuses, or a failure that it let pass."""
    if refusal := check_stage(stage, model=model, data=data, root=root):
        return refusal
    recipe = load_recipe(write_recipe(stage, model=model, data=data, root=root))
    try:
        run(recipe, runs=root / "runs")
    except Exception as error:
        return f"{FAILED} {type(error).__name__}: {str(error)[:600]}"
    return WORKS
