"""The end of every training: the checkpoint, its curve, and its loss on held-out records."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.evaluation.validation_loss import measure_validation
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import save_checkpoint
from limbeck.training.early_stopping import EarlyStopper
from limbeck.training.loop import History


def save_trained(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    history: History,
    max_steps: int,
    stopper: EarlyStopper | None = None,
    held_out: Iterable[Batch],
    folder: Path,
) -> dict[str, object]:
    """Write the checkpoint and `history.json`; the last losses, and the validation loss in nats.

    With a stopper, the steps are those that it let pass, and its metrics follow.
    """
    save_checkpoint(model, tokenizer=tokenizer, folder=folder)
    (folder / "history.json").write_text(json.dumps(history))
    last = history[-1] if history else {}
    return {
        **{name: last[name] for name in ("loss", "kl", "ce") if name in last},
        "steps": max_steps if stopper is None else stopper.stopped_step,
        **measure_validation(model, held_out),
        **({} if stopper is None else stopper.metrics(max_steps=max_steps)),
    }


@contextmanager
def keep_trained(
    model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase, work: Work
) -> Iterator[None]:
    """A refusal in this block does not lose what was trained before it.

    Raises:
        ParityError, CheckpointError: as in the block; the message says where the model is kept.
    """
    folder = work.persistent_dir / "trained"
    try:
        yield
    except (ParityError, CheckpointError) as error:
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(model, tokenizer=tokenizer, folder=folder)
        message = f"{error} The trained model is kept in {folder}: name it to go on from it"
        raise type(error)(message) from error
