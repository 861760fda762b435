"""Corpus, and perhaps a checkpoint, to a checkpoint: pre-training and fine-tuning, by objective."""

import json
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.config import choice
from limbeck.contracts.stage import CorpusRef, StageConfig, checkpoint_or
from limbeck.data.batching import Batches, BatchingConfig
from limbeck.models import MODELS
from limbeck.models.batch import find_keep
from limbeck.models.forward import KeptForward, count_picks
from limbeck.models.loading import load_model, load_tokenizer, save_checkpoint
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
    if isinstance(config.model, str):
        start = work.one("model").path
        tokenizer, model = load_tokenizer(start), load_model(start)
    else:
        tokenizer = load_tokenizer(corpus.path / "tokenizer")
        model = config.model.build(tokenizer=tokenizer, seed=config.seed)
    batches = Batches(corpus.path, tokenizer=tokenizer, config=config.batching)
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
    }


@torch.no_grad()
def report_load(model: PreTrainedModel, batches: Batches) -> dict[str, Any]:
    """How often each expert is picked, per layer and per specialty; empty for a dense model."""
    forward = KeptForward(model.eval())
    device = model.device
    count = min(ROUTED_RECORDS, len(batches))
    chosen = [index * len(batches) // count for index in range(count)]
    names = sorted({batches.specialties[index] for index in chosen})
    by_specialty: dict[str, list[list[int]]] = {}
    total = None
    for name in names:
        members = [index for index in chosen if batches.specialties[index] == name]
        for first in range(0, len(members), 64):
            batch = batches.batch(members[first : first + 64]).to(device)
            output = forward(batch.input_ids, find_keep(batch.labels))
            if not output.routing:
                return {}
            picks = count_picks(output.routing, tokens=batch.tokens.reshape(-1)).cpu()
            total = picks if total is None else total + picks
            known = by_specialty.get(name)
            summed = picks if known is None else picks + torch.tensor(known)
            by_specialty[name] = summed.tolist()
    return {"layers": total.tolist() if total is not None else [], "by_specialty": by_specialty}
