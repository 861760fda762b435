"""A teacher whose outputs were recorded once and are read back, record by record."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int
from typing_extensions import override

from limbeck.contracts.errors import ArtifactError
from limbeck.distillation.signals.config import Arrays
from limbeck.distillation.signals.hidden_states import read_hidden
from limbeck.distillation.signals.manifest import (
    read_record_ids,
    read_signals_manifest,
    shard_paths,
)
from limbeck.distillation.signals.shards import Shard, read_index, record_checksums
from limbeck.distillation.targets import Targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.objectives.config import Needs

OPEN_SHARDS = 64
"""Files mapped at a time."""


class OfflineTeacher(Teacher):
    """Reads what a `record` stage stored."""

    live_model = None

    def __init__(self, folder: Path, *, needs: Needs) -> None:
        """Open a folder; files are mapped when a batch first needs their records.

        Raises:
            ArtifactError: something is damaged or missing, or what the objective needs was not
                recorded.
        """
        self.folder = folder
        self.manifest = read_signals_manifest(folder)
        self.vocab, self.hidden_size = self.manifest.vocab, self.manifest.hidden
        self.temperature = needs.temperature
        refused = self.manifest.targets.refuse(needs.temperature)
        if refused:
            raise ArtifactError(f"{folder}: {refused}")
        if needs.max_temperature > needs.temperature:
            raise ArtifactError(
                f"{folder}: signals are read at one temperature, the objective's goes from "
                f"{needs.temperature!r} to {needs.max_temperature!r}; name the teacher's "
                "checkpoint in `teacher`, or give `temperature` a number"
            )
        self.layers = tuple(sorted(self.manifest.layers))
        self.required_places: tuple[int, ...] = ()
        self.index = read_index(folder, self.manifest)
        self.record_ids = read_record_ids(folder, self.manifest)
        self.paths = shard_paths(folder, self.manifest)
        self.open = lru_cache(maxsize=OPEN_SHARDS)(self._open)
        self.checked: set[int] = set()

    @override
    def require(self, *, layers: Sequence[int] = (), attention: Sequence[int] = ()) -> None:
        if attention:
            raise ArtifactError(
                f"{self.folder}: signals hold hidden states, no attention and no values; name the "
                "teacher's checkpoint in `teacher`, or match `what: hidden`"
            )
        recorded = self.manifest.layers
        for layer in layers:
            if layer not in recorded:
                raise ArtifactError(
                    f"{self.folder}: signals were recorded for layer {list(recorded)}, the "
                    f"objective wants {layer!r}; record it too"
                )
        self.required_places = tuple(recorded.index(layer) for layer in layers)

    def _open(self, index: int) -> Shard:
        sha256 = "" if index in self.checked else self.index.shards[index].sha256
        shard = Shard(self.paths[index], self.manifest, index=index, sha256=sha256)
        if shard.note.get("signals") != self.index.signals:
            raise ArtifactError(f"{shard.path}: belongs to other signals; record them again")
        self.checked.add(index)
        return shard

    @override
    def __call__(self, batch: Batch) -> Targets:
        """The stored targets of the batch's records, in the order of its kept positions.

        Raises:
            ArtifactError: a file is damaged, a record was not recorded, or has other tokens.
        """
        arrays = self._gather(batch)
        device = batch.input_ids.device
        output = self.manifest.targets.decode(
            arrays, vocab=self.vocab, temperature=self.temperature
        )
        if output.ids.numel() and int(output.ids.max()) >= self.vocab:
            raise ArtifactError(f"{self.folder}: token ids beyond {self.vocab}; record it again")
        hidden = tuple(read_hidden(arrays, place).to(device) for place in self.required_places)
        return Targets(output.to(device), hidden)

    def _find_records(self, record_ids: Int[np.ndarray, " records"]) -> list[int]:
        """The place of each record among those that the signals hold."""
        places = np.searchsorted(self.record_ids, record_ids)
        found = self.record_ids[np.minimum(places, len(self.record_ids) - 1)] == record_ids
        if not found.all():
            missing = record_ids[~found].tolist()
            raise ArtifactError(
                f"{self.folder}: holds no signals of record {missing[0]} (lines of the training "
                f"split from 0); a batch wants {len(missing)} such records: give both stages the "
                "same batching.select and batching.images, or record them again"
            )
        return places.tolist()

    def _gather(self, batch: Batch) -> dict[str, np.ndarray]:
        marks = record_checksums(batch)
        pieces: list[Arrays] = []
        record_ids = batch.record_ids.cpu().numpy()
        for mark, record_id, place in zip(
            marks, record_ids, self._find_records(record_ids), strict=True
        ):
            shard = self.open(place // self.manifest.shard_records)
            place = place % self.manifest.shard_records
            if shard.marks[place] != mark:
                raise ArtifactError(
                    f"{self.folder}: record {record_id} has other tokens than the teacher read; "
                    "the student's tokenizer, chat template or batching differs: use the "
                    "teacher's, or record again"
                )
            pieces.append(shard.piece(place))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
