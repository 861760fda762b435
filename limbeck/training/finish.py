"""The end of every training: the checkpoint, its curve, and its loss on held-out records."""

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.evaluation.validation_loss import measure_validation
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import save_checkpoint
from limbeck.training.loop import History


def save_trained(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    history: History,
    steps: int,
    held_out: Iterable[Batch],
    folder: Path,
) -> dict[str, object]:
    """Write the checkpoint and `history.json`; the last losses, and the validation loss in nats."""
    save_checkpoint(model, tokenizer=tokenizer, folder=folder)
    (folder / "history.json").write_text(json.dumps(history))
    return {
        **{name: history[-1][name] for name in ("loss", "kl", "ce") if name in history[-1]},
        "steps": steps,
        **measure_validation(model, held_out),
    }
