"""Variants of the demo's model, trained over seeds, and what each learnt at what cost.

Training goes through the pipeline, so an ablation that was stopped goes on where it was. A seed
changes the fresh weights and the order of the records. Left out: which variants, and what follows.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from limbeck.contracts.answerer import apply_here
from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.recipe import Recipe, load_recipe
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.evaluation.answer_questions import (
    AnsweredQuestion,
    answer_all,
    make_batches,
    read_questions,
)
from limbeck.models.checkpoints import load_model
from limbeck.models.forward import KeptForward
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.config import NextToken
from limbeck.objectives.next_token import NextTokenObjective
from limbeck.pipeline.run import run
from limbeck.runtimes import open_answerer
from limbeck.sizing.parameters import size_model

BASE = Path("recipes/demo.yaml")
RUNS = Path("runs")
TASKS = ("recall", "symptom_sets")
VALIDATION_RATIO = 0.06
BATCHING = {"per_device_train_batch_size": 21, "gradient_accumulation_steps": 3}
LR = 0.003
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Variant:
    """A model's description and how long it is trained."""

    name: str
    model: dict[str, Any]
    steps: int


def describe_base() -> dict[str, Any]:
    """The demo's mixture."""
    return dict(load_recipe(BASE).entries["base"]["model"])


def train(variants: Sequence[Variant], *, seeds: Sequence[int], name: str) -> dict[str, Artifact]:
    """The corpus and every trained model, `VARIANT-SEED` by name."""
    base = load_recipe(BASE)
    splits = {"validation_ratio": VALIDATION_RATIO, "test_ratio": 0.0}
    entries: dict[str, dict[str, Any]] = {"corpus": {**base.entries["corpus"], "splits": splits}}
    for seed in seeds:
        for variant in variants:
            entries[f"{variant.name}-{seed}"] = {
                "stage": "train",
                "corpus": "corpus",
                "model": variant.model,
                "seed": seed,
                "objective": {"kind": "next_token"},
                "batching": {**BATCHING, "seed": seed},
                "training": {"max_steps": variant.steps, "learning_rate": LR, "seed": seed},
            }
    recipe = Recipe(name, base.path, entries, {})
    return run(recipe, runs=RUNS, report=lambda entry, text: print(f"{entry}: {text}", flush=True))


def ask(
    artifact: Artifact, *, corpus: Path, tasks: Sequence[str], max_questions: int = 400
) -> list[AnsweredQuestion]:
    """The answers of one model to a corpus's questions of some tasks, kept by its content."""
    questions = read_questions(Corpus(corpus), max_questions=max_questions).questions
    return answer_all(
        open_model=lambda: apply_here(open_answerer(artifact.path, num_threads=1)),
        batches=make_batches([q for q in questions if q.task in tasks], batch_size=64),
        max_new_tokens=MAX_NEW_TOKENS,
        advance=lambda *_: None,
        state=artifact.path.parent
        / f".answers-{artifact.manifest.content_hash[:12]}-{max_questions}.jsonl",
    )


def measure(variants: Sequence[Variant], *, seeds: Sequence[int], made: Mapping[str, Artifact]):
    """One row for each model: what it cost, its validation loss, its score of each task."""
    rows = []
    for seed in seeds:
        for variant in variants:
            artifact = made[f"{variant.name}-{seed}"]
            judged = ask(artifact, corpus=made["corpus"].path, tasks=TASKS)
            scores = {
                task: statistics.mean(item.correct for item in judged if item.task == task)
                for task in TASKS
            }
            size = size_model(load_model(artifact.path).config, context_tokens=32)
            rows.append(
                {
                    "variant": variant.name,
                    "seed": seed,
                    "steps": variant.steps,
                    "parameters": size.parameters,
                    "active": size.active_parameters,
                    "forward_kflops_per_token": size.forward_flops / 1e3,
                    "validation_loss": artifact.manifest.metrics["validation_loss"],
                    **scores,
                    "accuracy": statistics.mean(scores.values()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def time_training(variants: Sequence[Variant], *, corpus: Path, turns: int) -> list[dict[str, Any]]:
    """Milliseconds of 1,000 tokens on one thread, forward and with backward, models in turns."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(corpus / "tokenizer")
    config = BatchingConfig.model_validate(BATCHING)
    batch = max(
        Batches(Corpus(corpus), tokenizer=tokenizer, config=config)(0),
        key=lambda b: b.input_ids.numel(),
    )
    thousands = batch.input_ids.numel() / 1000
    steps = {item.name: _make_step(item, tokenizer, batch) for item in variants}
    rows = []
    for turn in range(-1, turns):
        for name, step in steps.items():
            forward, both = step()
            if turn >= 0:
                rows.append(
                    {
                        "variant": name,
                        "turn": turn,
                        "forward_ms": forward / thousands,
                        "train_ms": both / thousands,
                    }
                )
    return rows


def _make_step(variant: Variant, tokenizer: Any, batch: Any) -> Callable[[], tuple[float, float]]:
    from limbeck.models.config import DenseModel, MoeModel  # noqa: PLC0415

    kinds = {"moe": MoeModel, "dense": DenseModel}
    described = kinds[variant.model["kind"]].model_validate(variant.model)
    model = described.build(tokenizer=tokenizer, seed=0)
    objective = NextTokenObjective(NextToken(kind="next_token"))
    forward = KeptForward(model)
    trained = list(model.parameters())

    def step() -> tuple[float, float]:
        started = time.perf_counter()
        with torch.no_grad():
            objective(forward, batch)
        middle = time.perf_counter()
        torch.autograd.grad(objective(forward, batch).sum, trained, allow_unused=True)
        ended = time.perf_counter()
        objective.balancer.picks.clear()
        return (middle - started) * 1e3, (ended - middle) * 1e3

    return step


def seed_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds with its 95 % interval by Student's t: few seeds, so a wide one."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def compare(
    rows: Sequence[Mapping[str, Any]], *, name: str, against: str, column: str
) -> Iterator[tuple[str, float]]:
    """Difference of two variants of equal seeds, with its interval, as named numbers."""
    ours = {row["seed"]: row[column] for row in rows if row["variant"] == name}
    theirs = {row["seed"]: row[column] for row in rows if row["variant"] == against}
    found = seed_interval([ours[seed] - theirs[seed] for seed in ours])
    for part, value in zip(("", "_low", "_high"), found, strict=True):
        yield f"{column}_{name}_minus_{against}{part}", value
