"""The teacher's outputs for a student: computed live, or recorded once and read back.

Recorded logits are kept relative to the position's largest, in float16; the mass of all other
tokens is kept for each temperature asked for. Left out: the loss (`limbeck.objectives`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Artifact, hash_file
from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError
from limbeck.data.batching import BatchingConfig
from limbeck.models.batch import Batch, find_keep
from limbeck.models.forward import KeptForward
from limbeck.models.images import ImageFormat
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.targets import Needs, Targets, Top, Whole
from limbeck.models.vision import image_format


class Description(Config):
    """What stored signals are of; a student that differs in any of it is refused."""

    top: Annotated[int, Field(gt=0)]
    temperatures: tuple[float, ...]
    layers: tuple[int, ...]
    vocab: Annotated[int, Field(gt=0)]
    hidden: Annotated[int, Field(gt=0)]
    num_records: Annotated[int, Field(gt=0)]
    shard_records: Annotated[int, Field(gt=0)]
    batching: BatchingConfig
    corpus_hash: str
    tokenizer_hash: str


def num_kept(batch: Batch) -> int:
    """Positions of a batch that carry a loss."""
    return int(find_keep(batch.labels).sum())


class LiveTeacher:
    """Runs the teacher on every batch."""

    def __init__(self, model: PreTrainedModel, *, layers: Sequence[int], vocab: int) -> None:
        self.model = KeptForward(model.eval().requires_grad_(False))
        self.layers = tuple(layers)
        self.hidden = int(model.config.get_text_config().hidden_size)
        self.vocab = vocab
        self.sees = image_format(model.config)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The whole distribution at each kept position."""
        keep = find_keep(batch.labels)
        self.model.to(batch.input_ids.device)
        output = self.model(batch.input_ids, keep, self.layers, batch.pixels)
        return Targets(Whole(output.logits), output.hidden)


class RecordedTeacher:
    """Reads what a teacher said once."""

    def __init__(self, folder: Path, *, temperature: float, layers: Sequence[int]) -> None:
        self.description = read_description(folder)
        self.vocab, self.hidden = self.description.vocab, self.description.hidden
        self.tail = self._find(self.description.temperatures, temperature, "temperature", folder)
        self.layers = [
            self._find(self.description.layers, layer, "layer", folder) for layer in layers
        ]
        _check_count(folder, self.description)
        shards = [
            _read_shard(path, self.description, index=index)
            for index, path in enumerate(shard_paths(folder, self.description))
        ]
        self.stored = {
            name: torch.from_numpy(np.concatenate([shard[name] for shard in shards]))
            for name in shards[0]
        }
        counts = self.stored.pop("counts").long()
        self.ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    @staticmethod
    def _find(known: Sequence[float | int], wanted: float | int, what: str, folder: Path) -> int:
        if wanted not in known:
            raise ArtifactError(
                f"{folder}: signals were recorded for {what} {list(known)}, the objective wants "
                f"{wanted!r}; record it too"
            )
        return list(known).index(wanted)

    def __call__(self, batch: Batch) -> Targets:
        """The stored targets of the batch's records, in the order of its kept positions."""
        places = torch.cat(
            [torch.arange(*self.ends[row : row + 2].tolist()) for row in batch.rows.tolist()]
        )
        if len(places) != num_kept(batch):
            raise ArtifactError(
                f"signals hold {len(places)} positions for a batch of {num_kept(batch)}; they were "
                "recorded under other batching settings: record them again"
            )
        device = batch.input_ids.device
        said = Top(
            self.stored["logits"][places].to(device, torch.float32),
            self.stored["ids"][places].to(device, torch.int64),
            self.stored["tail"][places, self.tail].to(device),
        )
        return Targets(
            said,
            tuple(self.stored[f"hidden{layer}"][places].to(device) for layer in self.layers),
        )


def encode(targets: Targets, *, top: int, temperatures: Sequence[float], vocab: int) -> dict:
    """Numpy arrays of the top logits, their ids, and the mass of the rest per temperature."""
    assert isinstance(targets.said, Whole)
    logits = targets.said.logits[:, :vocab].float()
    logits = logits - logits.max(dim=-1, keepdim=True).values
    values, ids = logits.topk(min(top, vocab), dim=-1)
    others = logits.scatter(1, ids, -torch.inf)
    tails = [(others / temperature).logsumexp(dim=-1) for temperature in temperatures]
    # An empty rest has mass zero; its logarithm is kept finite.
    tail = torch.stack(tails, dim=1).clamp(min=-1e4)
    arrays = {
        "logits": values.half().cpu().numpy(),
        "ids": ids.to(torch.int32).cpu().numpy(),
        "tail": tail.cpu().numpy(),
    }
    for place, hidden in enumerate(targets.hidden):
        arrays[f"hidden{place}"] = hidden.half().cpu().numpy()
    return arrays


def shard_paths(folder: Path, description: Description) -> list[Path]:
    """The files that a complete set of signals consists of."""
    count = -(-description.num_records // description.shard_records)
    return [folder / f"shard-{index:05d}.safetensors" for index in range(count)]


def read_description(folder: Path) -> Description:
    """What stored signals are of.

    Raises:
        ArtifactError: the description is missing or damaged.
    """
    path = folder / "signals.json"
    if not path.is_file():
        raise ArtifactError(f"{folder}: no signals.json; make it with a `record` entry")
    try:
        return Description.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); record it again") from None


def _read_shard(path: Path, description: Description, *, index: int) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); record it again") from None
    first = index * description.shard_records
    num_records = min(description.shard_records, description.num_records - first)
    _check_shard(path, arrays, description, num_records=num_records)
    return arrays


def _check_count(folder: Path, description: Description) -> None:
    wanted = -(-description.num_records // description.shard_records)
    found = sum(1 for _ in folder.glob("shard-*.safetensors"))
    if found != wanted:
        raise ArtifactError(
            f"{folder}: holds {found} shards, signals.json speaks of {wanted}; record them again"
        )


def _check_shard(
    path: Path, arrays: dict[str, np.ndarray], description: Description, *, num_records: int
) -> None:
    """Refuse a shard whose arrays do not fit `signals.json` or each other."""
    counts = arrays.get("counts", np.zeros(0, np.int32))
    positions = int(counts.sum())
    top, temperatures = description.top, len(description.temperatures)
    expected = {
        "counts": ((num_records,), "i"),
        "logits": ((positions, top), "f"),
        "ids": ((positions, top), "i"),
        "tail": ((positions, temperatures), "f"),
    }
    for place in range(len(description.layers)):
        expected[f"hidden{place}"] = ((positions, description.hidden), "f")
    for name, (shape, kind) in expected.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype.kind != kind:
            what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ArtifactError(
                f"{path}: {name!r} holds {what}, expected {list(shape)} ({kind!r}); record it again"
            )
    extra, ids = sorted(arrays.keys() - expected.keys()), arrays["ids"]
    if (
        extra
        or counts.min() < 0
        or (ids.size and not 0 <= ids.min() <= ids.max() < description.vocab)
    ):
        raise ArtifactError(
            f"{path}: damaged: unexpected arrays {extra}, or counts below 0, or token ids beyond "
            f"the vocabulary of {description.vocab}; record it again"
        )


def open_teacher(
    artifacts: Sequence[Artifact], *, corpus: Artifact, batching: BatchingConfig,
    needs: Needs | None, sees: ImageFormat | None = None,
) -> LiveTeacher | RecordedTeacher | None:  # fmt: skip
    """The teacher in a checkpoint, run live, or in recorded signals; None where none is needed.

    `needs` are what the objective asks for, `sees` the format of
    the images that batches hold; recorded signals fit any.

    Raises:
        ArtifactError: the signals are of another corpus, other batching or another tokenizer, or
            a live teacher reads other images.
    """
    if needs is None:
        return None
    (artifact,) = artifacts
    temperature, layers = needs.temperature, needs.layers
    ours = corpus.path / "tokenizer" / "tokenizer.json"
    if artifact.manifest.kind == "checkpoint":
        theirs = artifact.path / "tokenizer.json"
        if hash_file(theirs) != hash_file(ours):
            raise ArtifactError(
                f"{artifact.path}: the teacher's tokenizer differs from the corpus's; prepare the "
                "corpus with `tokenizer: {kind: folder, path: ...}` of the teacher"
            )
        vocab = len(load_tokenizer(artifact.path))
        live = LiveTeacher(load_model(artifact.path), layers=layers, vocab=vocab)
        if sees not in (None, live.sees) and batching.images != "without":
            raise ArtifactError(
                f"{artifact.path}: the teacher reads images as {live.sees}, the student as {sees}; "
                "give both an encoder of the same sizes, record the teacher's signals, or set "
                "batching.images: without"
            )
        return live
    teacher = RecordedTeacher(artifact.path, temperature=temperature, layers=layers)
    found = teacher.description
    for what, theirs, wanted in (
        ("corpus", found.corpus_hash, corpus.manifest.content_hash),
        ("tokenizer", found.tokenizer_hash, hash_file(ours)),
        ("select", found.batching.select, batching.select),
        ("images", found.batching.images, batching.images),
        ("loss_on", found.batching.loss_on, batching.loss_on),
        ("max_tokens", found.batching.max_tokens, batching.max_tokens),
    ):
        if theirs != wanted:
            raise ArtifactError(
                f"{artifact.path}: signals were recorded with {what} {theirs!r}, this stage uses "
                f"{wanted!r}; record them again"
            )
    return teacher


def describe(
    *, corpus: Artifact, batching: BatchingConfig, top: int, temperatures: Sequence[float],
    layers: Sequence[int], vocab: int, hidden: int, num_records: int, shard_records: int,
) -> str:  # fmt: skip
    """The text of `signals.json`."""
    description = Description(
        top=top, temperatures=tuple(temperatures), layers=tuple(layers), vocab=vocab,
        hidden=hidden, num_records=num_records, shard_records=shard_records, batching=batching,
        corpus_hash=corpus.manifest.content_hash,
        tokenizer_hash=hash_file(corpus.path / "tokenizer" / "tokenizer.json"),
    )  # fmt: skip
    return json.dumps(description.model_dump(), indent=2)
