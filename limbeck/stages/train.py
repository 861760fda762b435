"""Corpus, and perhaps a checkpoint, to a checkpoint: pre-training and fine-tuning, by objective."""

import json
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.config import choice
from limbeck.contracts.stage import CorpusRef, StageConfig, checkpoint_or
from limbeck.data.batching import Batches, BatchingConfig, held_out_batches
from limbeck.evaluation.likelihood import measure_validation
from limbeck.models import MODELS
from limbeck.models.batch import find_keep
from limbeck.models.forward import KeptForward, count_picks, measure_entropy
from limbeck.models.loading import open_start, save_checkpoint
from limbeck.models.sizing import size_model
from limbeck.models.vision import image_format
from limbeck.objectives import OBJECTIVES
from limbeck.objectives.loss import check_teacher
from limbeck.training.loop import TrainingConfig, fit

ROUTED_RECORDS = 1024
"""Training records on which the experts' load is reported."""


class Config(StageConfig):
    """Train a model on a corpus, without a teacher."""

    make: ClassVar[Kind] = "checkpoint"
    stage: Literal["train"]
    corpus: CorpusRef
    model: checkpoint_or(MODELS, what="model")  # pyright: ignore[reportInvalidTypeForm]
    """A fresh model by description, or a checkpoint to go on with."""
    objective: choice(OBJECTIVES, what="objective")  # pyright: ignore[reportInvalidTypeForm]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    seed: int = 0
    """Of fresh weights."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        check_teacher(self.objective, "")
        return self


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the trained checkpoint, its training curve, and a mixture's expert load."""
    corpus = work.one("corpus")
    tokenizer, model = open_start(config.model, work=work, field="model", seed=config.seed)
    data: Any = {
        "tokenizer": tokenizer,
        "config": config.batching,
        "image_format": image_format(model.config),
    }
    batches = Batches(corpus.path, **data)
    objective = config.objective.build(model=model, teacher=None)
    history = fit(
        model, batches=batches, objective=objective, config=config.training,
        state=work.state, title=work.name,
    )  # fmt: skip
    save_checkpoint(model, tokenizer=tokenizer, folder=work.folder)
    (work.folder / "history.json").write_text(json.dumps(history))
    load = report_load(model, batches)
    if load:
        (work.folder / "routing.json").write_text(json.dumps(load, ensure_ascii=False))
    return {
        "loss": history[-1]["loss"],
        "steps": config.training.steps,
        "parameters": sum(item.numel() for item in model.parameters()),
        "passes": config.training.steps * batches.records_per_step / len(batches.shown),
        **measure_validation(model, held_out_batches(corpus.path, **data)),
    }


@torch.no_grad()
def report_load(model: PreTrainedModel, batches: Batches) -> dict[str, Any]:
    """Which experts the router picks, how sure it is, and what it saves; empty if dense.

    `layers` and `by_specialty` count picks; `entropy_ratios` are means over tokens, 1 for a gate
    that prefers none; `skipped_ratio` is the share of the experts' arithmetic that was not done,
    the gate's own counted on both sides.
    """
    forward = KeptForward(model.eval())
    count = min(ROUTED_RECORDS, len(batches))
    chosen = [index * len(batches) // count for index in range(count)]
    by_specialty: dict[str, torch.Tensor] = {}
    entropy, num_tokens = torch.zeros(()), 0
    for name in sorted({batches.specialties[index] for index in chosen}):
        members = [index for index in chosen if batches.specialties[index] == name]
        for first in range(0, len(members), 64):
            batch = batches.batch(members[first : first + 64]).to(model.device)
            keep = find_keep(batch.labels)
            routing = forward(batch.input_ids, keep, pixels=batch.pixels).routing
            if not routing:
                return {}
            tokens = batch.tokens.reshape(-1)
            picks = count_picks(routing, tokens=tokens).cpu()
            by_specialty[name] = by_specialty.get(name, torch.zeros_like(picks)) + picks
            entropy = entropy + measure_entropy(routing, tokens=tokens).cpu()
            num_tokens += int(tokens.sum())
    layers = torch.stack(list(by_specialty.values())).sum(dim=0)
    size = size_model(model.config, context_tokens=1)
    done = size.expert_parameters * float(layers.sum()) / (num_tokens * layers.numel())
    return {
        "layers": layers.tolist(),
        "by_specialty": {name: picks.tolist() for name, picks in by_specialty.items()},
        "entropy_ratios": (entropy / num_tokens).tolist(),
        "skipped_ratio": 1 - (done + size.gate_parameters)
        / (size.expert_parameters + size.gate_parameters),
    }  # fmt: skip
