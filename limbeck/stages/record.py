"""Teacher and corpus to signals: the teacher runs once, and every student reads its outputs."""

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator

from limbeck.contracts.artifacts import Work, hash_file
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import Batches
from limbeck.distillation.signals.fidelity import add_errors, mean_errors
from limbeck.distillation.signals.manifest import (
    SIGNALS_FILE,
    SignalsManifest,
    fingerprints,
    shard_paths,
    write_signals_manifest,
)
from limbeck.distillation.signals.shards import Shard, write_index, write_shard
from limbeck.distillation.signals.writer import encode_shard
from limbeck.distillation.teachers.online import open_online_teacher
from limbeck.env.progress import track
from limbeck.models.tokenizers import load_reader
from limbeck.stages.config.record import Config


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the shards, `signals.json` and their checksums.

    Raises:
        ArtifactError: the folder holds parts of other signals.
        CheckpointError: the teacher's logits are not finite.
    """
    corpus = work.one("corpus")
    teacher_artifact = work.one("teacher")
    tokenizer = load_reader(teacher_artifact.path, corpus=Corpus(corpus.path))
    teacher = open_online_teacher(teacher_artifact, corpus=corpus)
    teacher.require(layers=config.layers)
    batches = Batches(
        Corpus(corpus.path),
        tokenizer=tokenizer,
        config=config.batching,
        image_format=teacher.image_format,
    )
    manifest = SignalsManifest(
        targets=config.targets,
        layers=config.layers,
        hidden_precision=config.hidden_precision,
        vocab=teacher.vocab,
        hidden=teacher.hidden_size,
        num_records=len(batches.records),
        shard_records=config.shard_records,
        batching=config.batching,
        teacher_hash=teacher_artifact.manifest.content_hash,
        **fingerprints(corpus),
    )
    write_signals_manifest(work.folder, manifest, record_ids=batches.records.ids)
    manifest_hash = hash_file(work.folder / SIGNALS_FILE)
    device = Accelerator().device
    entries, sums, num_bytes = [], [], 0
    work.state.mkdir(parents=True, exist_ok=True)
    with track(work.name, total=len(batches.records), unit="record") as advance:
        for index, path in enumerate(shard_paths(work.state, manifest)):
            record_ids = batches.records.ids[manifest.records(index)].tolist()
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
    for kept, path in zip(
        shard_paths(work.state, manifest), shard_paths(work.folder, manifest), strict=True
    ):
        _link(kept, path)
    write_index(work.folder, entries)
    num_positions = sum(entry.positions for entry in entries)
    return {
        "positions": num_positions,
        "bytes_per_position": num_bytes / max(1, num_positions),
        **mean_errors(add_errors(sums)),
    }


def _link(kept: Path, path: Path) -> None:
    """The file under a second name, so that a kill among many of them loses none."""
    try:
        path.hardlink_to(kept)
    except OSError:  # a file system without such names
        shutil.copyfile(kept, path)


def _find_shard(
    path: Path, manifest: SignalsManifest, *, index: int, manifest_hash: str
) -> Shard | None:
    """The very shard, where a killed run left it; a damaged one is made again."""
    try:
        shard = Shard(path, manifest, index=index)
    except ArtifactError:
        return None
    return shard if shard.note.get("signals") == manifest_hash else None
