"""Teacher and corpus to signals: the teacher runs once, and every student reads its outputs."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from pydantic import Field

from limbeck.contracts.artifacts import Kind, Work, hash_file
from limbeck.contracts.config import Choice
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.registry import CODECS
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.data.loading.batches import Batches, BatchingConfig
from limbeck.distillation.signals.codec import Codec
from limbeck.distillation.signals.fidelity import add_errors, mean_errors
from limbeck.distillation.signals.hidden_states import HiddenPrecision
from limbeck.distillation.signals.manifest import (
    SIGNALS_FILE,
    SignalsManifest,
    fingerprints,
    shard_paths,
    write_signals_manifest,
)
from limbeck.distillation.signals.shards import Shard, write_index, write_shard
from limbeck.distillation.signals.top_k_float import Plain
from limbeck.distillation.signals.writer import encode_shard
from limbeck.distillation.teachers.online import open_online_teacher
from limbeck.env.progress import track
from limbeck.models.checkpoints import load_tokenizer


class Config(StageConfig):
    """Record a teacher's most likely tokens at every position that a student learns from."""

    make: ClassVar[Kind] = "signals"
    stage: Literal["record"]
    teacher: CheckpointRef
    corpus: CorpusRef
    targets: Annotated[Codec, Choice(CODECS, what="targets")] = Plain(kind="plain")
    """What is stored of every position."""
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


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the shards, `signals.json` and their checksums.

    Raises:
        ArtifactError: the folder holds parts of other signals.
        CheckpointError: the teacher's logits are not finite.
    """
    corpus = work.one("corpus")
    teacher_artifact = work.one("teacher")
    tokenizer = load_tokenizer(teacher_artifact.path)
    teacher = open_online_teacher(teacher_artifact, corpus=corpus)
    teacher.require(layers=config.layers)
    batches = Batches(
        corpus.path, tokenizer=tokenizer, config=config.batching, image_format=teacher.image_format
    )
    manifest = SignalsManifest(
        targets=config.targets,
        layers=config.layers,
        hidden_precision=config.hidden_precision,
        vocab=teacher.vocab,
        hidden=teacher.hidden_size,
        num_records=len(batches),
        shard_records=config.shard_records,
        batching=config.batching,
        teacher_hash=teacher_artifact.manifest.content_hash,
        **fingerprints(corpus),
    )
    write_signals_manifest(work.folder, manifest, record_ids=batches.record_ids)
    manifest_hash = hash_file(work.folder / SIGNALS_FILE)
    device = Accelerator().device
    entries, sums, num_bytes = [], [], 0
    with track(work.name, total=len(batches), unit="record") as advance:
        for index, path in enumerate(shard_paths(work.folder, manifest)):
            record_ids = batches.record_ids[manifest.records(index)].tolist()
            shard = _find_shard(path, manifest, index=index, manifest_hash=manifest_hash)
            if shard is not None:
                entries.append(shard.entry)
                sums.append(shard.note["sums"])
            else:
                arrays, errors = encode_shard(
                    record_ids,
                    teacher=teacher,
                    batches=batches,
                    manifest=manifest,
                    batch_size=config.batch_size,
                    device=device,
                    generator=torch.Generator().manual_seed(config.seed * 1_000_003 + index),
                )
                entries.append(write_shard(path, arrays, manifest_hash=manifest_hash, sums=errors))
                sums.append(errors)
            num_bytes += path.stat().st_size
            advance(len(record_ids))
    write_index(work.folder, entries)
    num_positions = sum(entry.positions for entry in entries)
    return {
        "positions": num_positions,
        "bytes_per_position": num_bytes / max(1, num_positions),
        **mean_errors(add_errors(sums)),
    }


def _find_shard(
    path: Path, manifest: SignalsManifest, *, index: int, manifest_hash: str
) -> Shard | None:
    """The very shard, where a killed run left it; a damaged one is made again."""
    try:
        shard = Shard(path, manifest, index=index)
    except ArtifactError:
        return None
    return shard if shard.note.get("signals") == manifest_hash else None
