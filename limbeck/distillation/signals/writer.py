"""Turns a teacher's outputs into the arrays of a shard."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.contracts.errors import CheckpointError
from limbeck.data.loading.batches import Batches
from limbeck.distillation.signals.config import PACKED
from limbeck.distillation.signals.fidelity import add_errors, measure_errors
from limbeck.distillation.signals.hidden_states import store_hidden
from limbeck.distillation.signals.manifest import SignalsManifest
from limbeck.distillation.signals.shards import COUNTS, MARKS, record_checksums
from limbeck.distillation.targets import TeacherOutput
from limbeck.distillation.teachers.base import Teacher


def encode_shard(
    record_ids: Sequence[int],
    *,
    teacher: Teacher,
    batches: Batches,
    manifest: SignalsManifest,
    batch_size: int,
    device: torch.device,
    generator: torch.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The arrays of one shard, in the order of its records, and the sums of their errors.

    Raises:
        CheckpointError: the teacher's logits are not finite.
    """
    by_length = sorted(record_ids, key=lambda record_id: len(batches.records.tokens(record_id)))
    codec, vocab = manifest.targets, manifest.vocab
    pieces: dict[int, dict[str, np.ndarray]] = {}
    sums: list[Mapping[str, float]] = []
    for first in range(0, len(by_length), batch_size):
        members = by_length[first : first + batch_size]
        batch = batches.batch(members).to(device)
        targets = teacher(batch)
        logits = _relative_logits(targets.output, vocab=vocab, members=members)
        arrays = codec.encode(logits, generator=generator)
        stored = codec.decode(arrays, vocab=vocab, temperature=codec.reference_temperature())
        sums.append(measure_errors(stored, logits))
        widths = codec.widths(arrays, vocab=vocab)
        arrays |= store_hidden(targets.hidden_states, precision=manifest.hidden_precision)
        counts = batch.kept.sum(dim=1).cpu().numpy()
        ends = np.concatenate([[0], counts.cumsum()])
        byte_ends = np.concatenate([[0], widths.cumsum()])[ends] if len(widths) else ends
        for place, (record_id, mark) in enumerate(
            zip(members, record_checksums(batch), strict=True)
        ):
            pieces[record_id] = {
                name: array[byte_ends[place] : byte_ends[place + 1]]
                if name == PACKED
                else array[ends[place] : ends[place + 1]]
                for name, array in arrays.items()
            }
            pieces[record_id][COUNTS] = np.asarray([counts[place]], dtype=np.int32)
            pieces[record_id][MARKS] = np.asarray([mark], dtype=np.uint32)
    names = list(pieces[record_ids[0]])
    shard = {name: np.concatenate([pieces[item][name] for item in record_ids]) for name in names}
    return shard, add_errors(sums)


def _relative_logits(
    output: TeacherOutput, *, vocab: int, members: Sequence[int]
) -> Float[Tensor, "kept vocab"]:
    """The teacher's logits of real tokens, below the largest at each position."""
    full = output.full_logits()
    assert full is not None
    logits = full[:, :vocab].float()
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).any(dim=-1).sum())
        raise CheckpointError(
            f"the teacher's logits are NaN or infinite at {bad} of {len(logits)} positions of "
            f"records {sorted(members)[:5]}; expected numbers: its training diverged or its "
            "weights are damaged; take an earlier checkpoint"
        )
    return logits - logits.max(dim=-1, keepdim=True).values
