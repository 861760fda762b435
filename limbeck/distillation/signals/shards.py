"""Files of stored targets: written whole, checked by SHA-256, and read without being loaded.

A file holds the arrays of some records one after another in the safetensors layout; it is mapped
into memory, so a batch reads the pages of its own records only.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int, UInt32
from pydantic import Field
from safetensors.numpy import save_file

from limbeck.contracts.artifacts import hash_file, write_atomically
from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.json_data import JsonObject
from limbeck.distillation.signals.config import PACKED, ArrayLayout, Arrays
from limbeck.distillation.signals.hidden_states import hidden_layout
from limbeck.distillation.signals.manifest import (
    RECORD_IDS_FILE,
    SIGNALS_FILE,
    SignalsManifest,
    shard_paths,
)
from limbeck.models.batch import Batch, find_records

INDEX = "shards.json"
COUNTS, MARKS = "counts", "marks"
NOTE = "limbeck"
DTYPES = {
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
}


class ShardEntry(Config):
    """One file of a complete set."""

    sha256: str
    positions: Annotated[int, Field(ge=0)]


class ShardIndex(Config):
    """The checksums of a complete set of signals."""

    signals: str
    """Of `signals.json`."""
    record_ids: str
    """Of `record_ids.npy`."""
    shards: tuple[ShardEntry, ...]


def record_checksums(batch: Batch) -> UInt32[np.ndarray, " records"]:
    """A checksum of each record's tokens: equal where teacher and student read the same.

    Of a record with images only what carries a loss counts: encoders differ in tokens an image.
    """
    ids, labels = batch.input_ids.cpu().numpy(), batch.labels.cpu().numpy()
    keep, tokens = batch.kept.cpu().numpy(), batch.tokens.cpu().numpy()
    with_images = set(batch.images.rows.tolist()) if batch.images is not None else set()
    marks = []
    for row, part in find_records(batch):
        place = (row, part)
        kept = labels[place][1:][keep[place][:-1]].astype("<i4").tobytes()
        read = b"" if row in with_images else ids[place][tokens[place]].astype("<i4").tobytes()
        marks.append(zlib.crc32(kept, zlib.crc32(read)))
    return np.asarray(marks, dtype=np.uint32)


def full_layout(manifest: SignalsManifest) -> ArrayLayout:
    """The arrays of a shard, with its hidden states."""
    return {
        **manifest.targets.layout(manifest.vocab),
        **hidden_layout(
            num_layers=len(manifest.layers),
            hidden=manifest.hidden,
            precision=manifest.hidden_precision,
        ),
    }


def write_shard(
    path: Path, arrays: Arrays, *, manifest_hash: str, sums: Mapping[str, float]
) -> ShardEntry:
    """Put a shard in place at once: a kill leaves all of it or nothing. Its line of the index."""
    partial = path.with_suffix(".partial")
    ready = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # One entry only: the library writes several in any order, and equal signals have equal bytes.
    note = {"signals": manifest_hash, "sums": dict(sums)}
    save_file(ready, partial, {NOTE: json.dumps(note, sort_keys=True)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    return ShardEntry(sha256=hash_file(path), positions=int(arrays[COUNTS].sum()))


def write_index(folder: Path, entries: Sequence[ShardEntry]) -> None:
    """Write the checksums of all shards."""
    found = ShardIndex(
        signals=hash_file(folder / SIGNALS_FILE),
        record_ids=hash_file(folder / RECORD_IDS_FILE),
        shards=tuple(entries),
    )
    write_atomically(folder / INDEX, found.model_dump_json(indent=2))


def read_index(folder: Path, manifest: SignalsManifest) -> ShardIndex:
    """The checksums of a complete set.

    Raises:
        ArtifactError: they are missing or damaged, or `signals.json` or a file is not theirs.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {INDEX}, so it is not complete; record it again")
    try:
        index = ShardIndex.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); record it again") from None
    for name, expected in ((SIGNALS_FILE, index.signals), (RECORD_IDS_FILE, index.record_ids)):
        if hash_file(folder / name) != expected:
            raise ArtifactError(
                f"{folder / name}: is not the one that {INDEX} lists; record it again"
            )
    missing = [item.name for item in shard_paths(folder, manifest) if not item.is_file()]
    if missing or len(index.shards) != manifest.num_shards:
        raise ArtifactError(
            f"{folder}: {INDEX} lists {len(index.shards)} shards, signals.json "
            f"{manifest.num_shards}, missing are {missing[:3]}; record them again"
        )
    return index


class Shard:
    """One file, mapped into memory."""

    def __init__(
        self, path: Path, manifest: SignalsManifest, *, index: int, sha256: str = ""
    ) -> None:
        """Map a file; where its SHA-256 is given it must have that.

        Raises:
            ArtifactError: the file is missing, damaged, or of other signals.
        """
        self.path = path
        if sha256 and hash_file(path) != sha256:
            raise ArtifactError(
                f"{path}: damaged: its SHA-256 is not that in {INDEX}; record again"
            )
        self.arrays, self.note = _map(path)
        counts = self._pop(COUNTS, ("<i4", ()), len(manifest.records(index)))
        self.marks = self._pop(MARKS, ("<u4", ()), len(counts))
        if counts.min() < 0:
            raise ArtifactError(f"{path}: damaged: counts below 0; record it again")
        self.ends = _ends(counts)
        self._check(full_layout(manifest), int(self.ends[-1]))
        widths = manifest.targets.widths(self.arrays, vocab=manifest.vocab)
        self.byte_ends = _ends(widths)[self.ends] if len(widths) else self.ends
        if PACKED in self.arrays and len(self.arrays[PACKED]) != self.byte_ends[-1]:
            raise ArtifactError(f"{path}: damaged: packed bytes do not add up; record it again")

    def _pop(self, name: str, kind: tuple[str, tuple[int, ...]], count: int) -> np.ndarray:
        self._check({name: kind}, count)
        return self.arrays.pop(name)

    def _check(self, layout: ArrayLayout, count: int) -> None:
        for name, (dtype, tail) in layout.items():
            found = self.arrays.get(name)
            ragged = name == PACKED and found is not None and found.ndim == 1
            shape = found.shape if ragged and found is not None else (count, *tail)
            if found is None or found.dtype.str != dtype or found.shape != shape:
                what = "nothing" if found is None else f"{found.dtype.str} {list(found.shape)}"
                raise ArtifactError(
                    f"{self.path}: {name!r} holds {what}, expected {dtype} {list(shape)}; record "
                    "it again"
                )

    @property
    def entry(self) -> ShardEntry:
        """The shard's line of the index."""
        return ShardEntry(sha256=hash_file(self.path), positions=int(self.ends[-1]))

    def piece(self, record: int) -> dict[str, np.ndarray]:
        """The arrays of one record, counted within the shard."""
        span = slice(self.ends[record], self.ends[record + 1])
        packed = slice(self.byte_ends[record], self.byte_ends[record + 1])
        return {
            name: array[packed if name == PACKED else span] for name, array in self.arrays.items()
        }


def _ends(counts: Int[np.ndarray, " items"]) -> Int[np.ndarray, " ends"]:
    return np.concatenate([[0], counts.astype(np.int64).cumsum()])


def _map(path: Path) -> tuple[dict[str, np.ndarray], JsonObject]:
    """A safetensors file's arrays, and the note in its header."""
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
        header_bytes = int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8 : 8 + header_bytes].tobytes())
        note = dict(json.loads(header.pop("__metadata__")[NOTE]))
        arrays = {}
        for name, item in header.items():
            first, last = (8 + header_bytes + offset for offset in item["data_offsets"])
            array = raw[first:last].view(DTYPES[item["dtype"]])
            arrays[name] = array.reshape(item["shape"])
        return arrays, note
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error!r}); record it again") from None
