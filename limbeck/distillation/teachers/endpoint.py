"""A teacher whose log-probabilities a server gave when the corpus was labelled."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.endpoint.token_alignment import NO_MASS, Labels
from limbeck.distillation.targets import Targets, TopK
from limbeck.distillation.teachers.base import OutputTeacher
from limbeck.models.batch import Batch, count_kept
from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.config import Needs

FOLDER = "labels"


class LabelsManifest(Config):
    """What stored labels are of."""

    model: str
    vocab: Annotated[int, Field(gt=0)]
    top: Annotated[int, Field(gt=1)]
    tokenizer_hash: str


def write_labels(
    folder: Path, labels: Sequence[Labels | None], *, manifest: LabelsManifest
) -> None:
    """Write the labels of every training record; None for a record that was not labelled."""
    (folder / FOLDER).mkdir(exist_ok=True)
    held = [item for item in labels if item is not None]
    arrays = {
        "counts": np.asarray([0 if item is None else len(item.tail) for item in labels], np.int32),
        "ids": np.concatenate([item.ids for item in held]),
        "logs": np.concatenate([item.logs for item in held]),
        "tail": np.concatenate([item.tail for item in held]),
    }
    save_file(arrays, folder / FOLDER / "labels.safetensors")
    text = json.dumps(manifest.model_dump(), indent=2)
    (folder / FOLDER / "labels.json").write_text(text, encoding="utf-8")


class EndpointTeacher(OutputTeacher):
    """Reads a server's log-probabilities of each training record.

    An answer that was not labelled has all the mass on its own tokens: plain cross-entropy.
    """

    def __init__(self, corpus: Corpus, *, batches: Batches, needs: Needs) -> None:
        """Raises: ArtifactError: the labels do not fit the objective, the batches or each other."""
        manifest, stored = _read(corpus.folder)
        tokenizer = load_tokenizer(corpus.tokenizer_path)
        if manifest.tokenizer_hash != identify(tokenizer).fingerprint:
            raise ArtifactError(f"{corpus.folder}: labels are of another tokenizer; label it again")
        _check(corpus.folder, batching=batches.config, needs=needs)
        self.vocab, self.top = manifest.vocab, manifest.top
        num_records = len(batches.records.split.lengths)
        counts = torch.from_numpy(stored.pop("counts")).long()
        if len(counts) != num_records:
            raise ArtifactError(
                f"{corpus.folder}: labels are of {len(counts)} records, there are {num_records}; "
                "label it again"
            )
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        self.spans = torch.stack([ends[:-1], ends[1:]], dim=1)
        self.stored = {name: torch.from_numpy(array) for name, array in stored.items()}

    @override
    def __call__(self, batch: Batch) -> Targets:
        """The stored targets of the batch's records, in the order of its kept positions."""
        ids, logs, tail = self._certain(batch.targets.cpu())
        first = 0
        for record_id, num in zip(
            batch.record_ids.tolist(), count_kept(batch).tolist(), strict=True
        ):
            start, end = self.spans[record_id].tolist()
            if end > start:
                if num > end - start:
                    raise ArtifactError(
                        f"labels hold {end - start} positions for an answer of {num}; the corpus's "
                        "tokenizer or its template has changed: label it again"
                    )
                there, stored = slice(first, first + num), slice(start, start + num)
                ids[there] = self.stored["ids"][stored].long()
                logs[there] = self.stored["logs"][stored]
                tail[there] = self.stored["tail"][stored]
            first += num
        device = batch.input_ids.device
        return Targets(TopK(logs, ids, tail, temperature=1.0).to(device))

    def _certain(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All the mass on the answer's own tokens."""
        shape = (len(answers), self.top)
        # Others that differ from the answer and from each other; they hold no mass.
        ids = (answers.unsqueeze(1) + torch.arange(self.top)) % self.vocab
        logs = torch.full(shape, NO_MASS)
        logs[:, 0] = 0.0
        return ids, logs, torch.full((len(answers),), NO_MASS)


def _check(corpus: Path, *, batching: BatchingConfig, needs: Needs) -> None:
    """Refuse an objective or batches that the labels do not fit."""
    for what, found, expected in (
        ("temperature", needs.temperature, 1),
        ("highest temperature", needs.max_temperature or 1, 1),
        ("loss_on", batching.loss_on, "answer"),
    ):
        if found != expected:
            raise ArtifactError(
                f"{corpus}: a server's log-probabilities are of answers, at temperature 1; "
                f"{what} is {found!r}, set it to {expected!r}"
            )


def _read(corpus: Path) -> tuple[LabelsManifest, dict[str, np.ndarray]]:
    folder = corpus / FOLDER
    if not (folder / "labels.json").is_file():
        raise ArtifactError(
            f"{corpus}: a corpus is a teacher only with labels of a server's log-probabilities; "
            "make it with an entry `stage: label` with `write: {kind: logprobs}`"
        )
    try:
        text = (folder / "labels.json").read_text(encoding="utf-8")
        manifest = LabelsManifest.model_validate_json(text)
        arrays = load_file(folder / "labels.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: damaged ({error}); label it again") from None
    num = int(arrays["counts"].sum()) if "counts" in arrays else -1
    shapes = {"ids": (num, manifest.top), "logs": (num, manifest.top), "tail": (num,)}
    if any(name not in arrays or arrays[name].shape != shapes[name] for name in shapes):
        raise ArtifactError(f"{folder}: arrays do not fit each other; label it again")
    return manifest, arrays
