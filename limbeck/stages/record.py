"""Teacher and corpus to signals: the teacher runs once, and every student reads what it said."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from safetensors.numpy import save_file

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.progress import track
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.data.batching import Batches, BatchingConfig
from limbeck.data.signals import (
    Description,
    LiveTeacher,
    describe,
    encode,
    open_teacher,
    read_description,
    shard_paths,
)
from limbeck.models.batch import find_keep
from limbeck.models.loading import load_tokenizer
from limbeck.models.targets import Needs


class Config(StageConfig):
    """Record a teacher's most likely tokens at every position that a student learns from."""

    make: ClassVar[Kind] = "signals"
    stage: Literal["record"]
    teacher: CheckpointRef
    corpus: CorpusRef
    top: Annotated[int, Field(gt=0)] = 16
    """Tokens kept per position; the mass of all others is kept as one number."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1.0,
        2.0,
    )
    """Temperatures that students may use."""
    layers: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Teacher layers whose hidden states are kept, counted from 1."""
    batching: BatchingConfig = BatchingConfig()
    shard_records: Annotated[int, Field(gt=0)] = 2048
    """Records of one file; a killed run goes on after the last whole file."""
    batch_records: Annotated[int, Field(gt=0)] = 64
    """Records of one forward pass."""


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the shards and `signals.json`."""
    corpus = work.one("corpus")
    teacher_artifact = work.one("teacher")
    tokenizer = load_tokenizer(teacher_artifact.path)
    teacher = open_teacher(
        [teacher_artifact], corpus=corpus, batching=config.batching,
        needs=Needs(config.temperatures[0], config.layers),
    )  # fmt: skip
    assert isinstance(teacher, LiveTeacher)
    batches = Batches(
        corpus.path, tokenizer=tokenizer, config=config.batching, image_format=teacher.sees
    )
    (work.folder / "signals.json").write_text(
        describe(
            corpus=corpus, batching=config.batching, top=min(config.top, teacher.vocab),
            temperatures=config.temperatures, layers=config.layers, vocab=teacher.vocab,
            hidden=teacher.hidden, num_records=len(batches), shard_records=config.shard_records,
        )
    )  # fmt: skip
    description = read_description(work.folder)
    paths = shard_paths(work.folder, description)
    device = Accelerator().device
    with track(work.name, total=len(batches), unit="record") as advance:
        for index, path in enumerate(paths):
            first = index * config.shard_records
            rows = range(first, min(first + config.shard_records, len(batches)))
            if not path.is_file():
                _write(path, _record(rows, teacher, batches, description, config, device))
            advance(len(rows))
    num_bytes = sum(path.stat().st_size for path in paths)
    num_positions = _count(batches)
    return {"positions": num_positions, "bytes_per_position": num_bytes / max(1, num_positions)}


def _record(
    rows: range, teacher: LiveTeacher, batches: Batches, description: Description,
    config: Config, device: torch.device,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The arrays of one shard, in the order of its records."""
    by_length = sorted(rows, key=lambda row: int(batches.ends[row + 1] - batches.ends[row]))
    pieces: dict[int, dict[str, np.ndarray]] = {}
    for first in range(0, len(by_length), config.batch_records):
        members = by_length[first : first + config.batch_records]
        batch = batches.batch(members).to(device)
        arrays = encode(
            teacher(batch), top=description.top, temperatures=description.temperatures,
            vocab=description.vocab,
        )  # fmt: skip
        counts = find_keep(batch.labels).sum(dim=1).cpu().numpy()
        ends = np.concatenate([[0], counts.cumsum()])
        for place, row in enumerate(members):
            span = slice(ends[place], ends[place + 1])
            pieces[row] = {name: array[span] for name, array in arrays.items()}
    names = list(pieces[rows[0]])
    shard = {name: np.concatenate([pieces[row][name] for row in rows]) for name in names}
    shard["counts"] = np.asarray([len(pieces[row]["tail"]) for row in rows], dtype=np.int32)
    return shard


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
    partial.replace(path)


def _count(batches: Batches) -> int:
    if batches.config.loss_on == "all":
        return sum(int(find_keep(batch.labels).sum()) for batch in batches.in_turn())
    lengths = batches.ends[1:] - batches.ends[:-1]
    return int((lengths - np.maximum(batches.starts, 1)).sum())
