"""Teacher and corpus to signals: the teacher runs once, and every student reads what it said."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from limbeck.contracts.artifacts import Kind, Work, hash_file
from limbeck.contracts.config import Choice
from limbeck.contracts.errors import ArtifactError, CheckpointError
from limbeck.contracts.registry import CODECS
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.data.loading.batches import Batches, BatchingConfig
from limbeck.distillation.signals.codec import PACKED, Codec
from limbeck.distillation.signals.fidelity import add, compare, conclude
from limbeck.distillation.signals.manifest import (
    DESCRIPTION,
    HiddenPrecision,
    SignalsManifest,
    fingerprints,
    shard_paths,
    write_signals_manifest,
)
from limbeck.distillation.signals.shards import (
    COUNTS,
    MARKS,
    Shard,
    mark_records,
    write_index,
    write_shard,
)
from limbeck.distillation.signals.top_k_float import Plain
from limbeck.distillation.teachers.offline import store_hidden
from limbeck.distillation.teachers.online import OnlineTeacher, open_teacher
from limbeck.env.progress import track
from limbeck.models.checkpoints import load_tokenizer
from limbeck.models.targets import FullLogits, Needs, TeacherDistribution


class Config(StageConfig):
    """Record a teacher's most likely tokens at every position that a student learns from."""

    make: ClassVar[Kind] = "signals"
    stage: Literal["record"]
    teacher: CheckpointRef
    corpus: CorpusRef
    targets: Annotated[Codec, Choice(CODECS, what="targets")] = Plain(kind="plain")
    """What is kept of every position. `top: 16` and `temperatures: [2.0]` beside it are short for
    `targets: {kind: plain, count: 16, temperatures: [2.0]}`."""
    layers: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Teacher layers whose hidden states are kept, counted from 1."""
    hidden_precision: HiddenPrecision = "float16"
    """How hidden states are kept; int8 has one scale a position."""
    batching: BatchingConfig = BatchingConfig()
    shard_records: Annotated[int, Field(gt=0)] = 2048
    """Records of one file; a killed run goes on after the last whole file."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Records of one forward pass."""
    seed: int = 0
    """Of drawn tokens."""

    @model_validator(mode="before")
    @classmethod
    def _lengthen(cls, value: Any) -> Any:
        """The short form of plain targets, written out."""
        short = {"count": "top", "temperatures": "temperatures"}
        found = {long: value[name] for long, name in short.items() if name in value}
        if not found:
            return value
        if "targets" in value:
            raise ValueError(
                f"{sorted(short[name] for name in found)} are short for `targets: {{kind: plain, "
                f"...}}`, which is given too ({value['targets']!r}); write them inside it"
            )
        rest = {name: item for name, item in value.items() if name not in short.values()}
        return rest | {"targets": {"kind": "plain", **found}}


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the shards, `signals.json` and their checksums.

    Raises:
        ArtifactError: the folder holds parts of other signals.
        CheckpointError: the teacher says something that is no number.
    """
    corpus = work.one("corpus")
    teacher_artifact = work.one("teacher")
    tokenizer = load_tokenizer(teacher_artifact.path)
    teacher = open_teacher(
        [teacher_artifact],
        corpus=corpus,
        batching=config.batching,
        needs=Needs(config.targets.reference_temperature(), config.layers),
    )
    assert isinstance(teacher, OnlineTeacher)
    batches = Batches(
        corpus.path, tokenizer=tokenizer, config=config.batching, image_format=teacher.sees
    )
    description = SignalsManifest(
        targets=config.targets,
        layers=config.layers,
        hidden_precision=config.hidden_precision,
        vocab=teacher.vocab,
        hidden=teacher.hidden,
        num_records=len(batches),
        shard_records=config.shard_records,
        batching=config.batching,
        teacher_hash=teacher_artifact.manifest.content_hash,
        **fingerprints(corpus),
    )
    write_signals_manifest(work.folder, description)
    description_hash = hash_file(work.folder / DESCRIPTION)
    paths = shard_paths(work.folder, description)
    device = Accelerator().device
    with track(work.name, total=len(batches), unit="record") as advance:
        for index, path in enumerate(paths):
            rows = description.records(index)
            if not _is_whole(path, description, index=index, description_hash=description_hash):
                generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index)
                arrays, sums = _record(
                    rows, teacher, batches, description, config, device, generator
                )
                write_shard(path, arrays, description_hash=description_hash, sums=sums)
            advance(len(rows))
    num_positions = write_index(work.folder, description)
    sums = [Shard(path, description, index=index).note["sums"] for index, path in enumerate(paths)]
    num_bytes = sum(path.stat().st_size for path in paths)
    return {
        "positions": num_positions,
        "bytes_per_position": num_bytes / max(1, num_positions),
        **conclude(add(sums)),
    }


def _is_whole(
    path: Path, description: SignalsManifest, *, index: int, description_hash: str
) -> bool:
    """Whether a killed run left this very shard; a damaged one is made again."""
    try:
        shard = Shard(path, description, index=index)
    except ArtifactError:
        return False
    return shard.note.get("signals") == description_hash


def _record(
    rows: range,
    teacher: OnlineTeacher,
    batches: Batches,
    description: SignalsManifest,
    config: Config,
    device: torch.device,
    generator: torch.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The arrays of one shard, in the order of its records, and the sums of their errors."""
    by_length = sorted(rows, key=lambda row: int(batches.ends[row + 1] - batches.ends[row]))
    codec, vocab = description.targets, description.vocab
    pieces: dict[int, dict[str, np.ndarray]] = {}
    sums: list[Mapping[str, float]] = []
    for first in range(0, len(by_length), config.batch_size):
        members = by_length[first : first + config.batch_size]
        batch = batches.batch(members).to(device)
        targets = teacher(batch)
        logits = _relative(targets.said, vocab=vocab, members=members)
        arrays = codec.encode(logits, generator=generator)
        said = codec.decode(arrays, vocab=vocab, temperature=codec.reference_temperature())
        sums.append(compare(said, logits, temperature=codec.reference_temperature()))
        widths = codec.widths(arrays, vocab=vocab)
        arrays |= store_hidden(targets.hidden, precision=config.hidden_precision)
        counts = batch.kept.sum(dim=1).cpu().numpy()
        ends = np.concatenate([[0], counts.cumsum()])
        byte_ends = np.concatenate([[0], widths.cumsum()])[ends] if len(widths) else ends
        for place, (row, mark) in enumerate(zip(members, mark_records(batch), strict=True)):
            pieces[row] = {
                name: array[byte_ends[place] : byte_ends[place + 1]]
                if name == PACKED
                else array[ends[place] : ends[place + 1]]
                for name, array in arrays.items()
            }
            pieces[row][COUNTS] = np.asarray([counts[place]], dtype=np.int32)
            pieces[row][MARKS] = np.asarray([mark], dtype=np.uint32)
    names = list(pieces[rows[0]])
    shard = {name: np.concatenate([pieces[row][name] for row in rows]) for name in names}
    return shard, add(sums)


def _relative(
    said: TeacherDistribution, *, vocab: int, members: Sequence[int]
) -> Float[Tensor, "kept vocab"]:
    """The teacher's logits of real tokens, below the largest at each position."""
    assert isinstance(said, FullLogits)
    logits = said.logits[:, :vocab].float()
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).any(dim=-1).sum())
        raise CheckpointError(
            f"the teacher's logits are NaN or infinite at {bad} of {len(logits)} positions of "
            f"records {sorted(members)[:5]}; expected numbers: its training diverged or its "
            "weights are damaged; take an earlier checkpoint"
        )
    return logits - logits.max(dim=-1, keepdim=True).values
