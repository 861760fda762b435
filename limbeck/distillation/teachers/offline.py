"""A teacher that was recorded once and is read back, record by record."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.contracts.errors import ArtifactError
from limbeck.distillation.signals.codec import Arrays
from limbeck.distillation.signals.manifest import read_signals_manifest, shard_paths
from limbeck.distillation.signals.shards import Shard, mark_records, read_index
from limbeck.models.batch import Batch
from limbeck.models.targets import (
    FullLogits,
    HiddenAndHead,
    ImportanceSampled,
    Needs,
    Targets,
    TopK,
)

OPEN_SHARDS = 64
"""Files mapped at a time."""


class OfflineTeacher:
    """Reads what a teacher said once."""

    def __init__(self, folder: Path, *, needs: Needs) -> None:
        """Open a folder; files are mapped when a batch first asks for their records.

        Raises:
            ArtifactError: something is damaged or missing, or what the objective needs was not
                recorded.
        """
        self.folder = folder
        self.description = read_signals_manifest(folder)
        self.vocab, self.hidden = self.description.vocab, self.description.hidden
        self.temperature = needs.temperature
        refused = self.description.targets.refuse(needs.temperature)
        if refused:
            raise ArtifactError(f"{folder}: {refused}")
        if needs.highest > needs.temperature:
            raise ArtifactError(
                f"{folder}: signals are read at one temperature, the objective's goes from "
                f"{needs.temperature!r} to {needs.highest!r}; ask a live teacher, or keep it"
            )
        self.known = tuple(sorted(self.description.layers))
        self.ask(layers=needs.layers, attended=())
        self.index = read_index(folder, self.description)
        self.paths = shard_paths(folder, self.description)
        self.open = lru_cache(maxsize=OPEN_SHARDS)(self._open)
        self.checked: set[int] = set()

    def ask(self, *, layers: Sequence[int], attended: Sequence[int]) -> None:
        """From now on give the layers' hidden states.

        Raises:
            ArtifactError: they were not recorded, or attention is asked for.
        """
        if attended:
            raise ArtifactError(
                f"{self.folder}: signals hold hidden states, no attention and no values; name the "
                "teacher's checkpoint in `teacher`, or match `what: hidden`"
            )
        self.layers = [self._find(layer) for layer in layers]

    def _find(self, layer: int) -> int:
        known = self.description.layers
        if layer not in known:
            raise ArtifactError(
                f"{self.folder}: signals were recorded for layer {list(known)}, the objective "
                f"wants {layer!r}; record it too"
            )
        return known.index(layer)

    def _open(self, index: int) -> Shard:
        sha256 = "" if index in self.checked else self.index.shards[index].sha256
        shard = Shard(self.paths[index], self.description, index=index, sha256=sha256)
        if shard.note.get("signals") != self.index.signals:
            raise ArtifactError(f"{shard.path}: belongs to other signals; record them again")
        self.checked.add(index)
        return shard

    def __call__(self, batch: Batch) -> Targets:
        """The stored targets of the batch's records, in the order of its kept positions.

        Raises:
            ArtifactError: a file is damaged, or the batch's tokens are not those recorded.
        """
        arrays = self._gather(batch)
        device = batch.input_ids.device
        said = self.description.targets.decode(
            arrays, vocab=self.vocab, temperature=self.temperature
        )
        assert not isinstance(said, FullLogits | HiddenAndHead)
        if said.ids.numel() and int(said.ids.max()) >= self.vocab:
            raise ArtifactError(f"{self.folder}: token ids beyond {self.vocab}; record it again")
        hidden = tuple(_read_hidden(arrays, layer).to(device) for layer in self.layers)
        return Targets(_move(said, device), hidden)

    def _gather(self, batch: Batch) -> dict[str, np.ndarray]:
        marks = mark_records(batch)
        pieces: list[Arrays] = []
        for mark, row in zip(marks, batch.rows.tolist(), strict=True):
            shard = self.open(row // self.description.shard_records)
            place = row % self.description.shard_records
            if shard.marks[place] != mark:
                raise ArtifactError(
                    f"{self.folder}: record {row} has other tokens than the teacher read; the "
                    "student's tokenizer, chat template or batching differs: use the teacher's, "
                    "or record again"
                )
            pieces.append(shard.piece(place))
        arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return arrays


def _read_hidden(arrays: Arrays, place: int) -> Float[Tensor, "kept hidden"]:
    found = torch.from_numpy(arrays[f"hidden{place}"])
    scale = arrays.get(f"hidden{place}_scale")
    return found if scale is None else found.float() * torch.from_numpy(scale)[:, None]


def _move(
    said: FullLogits | HiddenAndHead | TopK | ImportanceSampled, device: torch.device
) -> TopK | ImportanceSampled:
    """Stored targets on a device; of whole distributions none are stored."""
    assert isinstance(said, TopK | ImportanceSampled)
    return type(said)(*(part.to(device) for part in said))


def store_hidden(
    hidden: Sequence[Float[Tensor, "kept hidden"]], *, precision: str
) -> dict[str, np.ndarray]:
    """Arrays of hidden states; int8 has a scale for each position.

    Raises:
        ArtifactError: a state is not finite, or too large for float16.
    """
    arrays = {}
    for place, states in enumerate(hidden):
        name = f"hidden{place}"
        if precision == "int8":
            scale = states.float().abs().amax(dim=-1).clamp(min=1e-30) / 127
            stored = (states.float() / scale[:, None]).round().to(torch.int8)
            arrays[f"{name}_scale"] = scale.cpu().numpy()
        else:
            scale = stored = states.half()
        if not bool(torch.isfinite(scale).all()):
            raise ArtifactError(
                f"hidden states number {place + 1} are not finite in {precision}; expected finite "
                "ones: set `hidden_precision: int8`, leave that layer out, or mend the teacher"
            )
        arrays[name] = stored.cpu().numpy()
    return arrays
