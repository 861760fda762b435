"""What stored signals are of: their settings, and fingerprints of all they were made from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int
from pydantic import Field

from limbeck.contracts.artifacts import Artifact, hash_text, write_atomically
from limbeck.contracts.config import Choice, Config
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.registry import CODECS
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.signals.config import Codec, HiddenPrecision
from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer

SIGNALS_FILE = "signals.json"
RECORD_IDS_FILE = "record_ids.npy"


class SignalsManifest(Config):
    """What stored signals are of; a student that differs in any of it is refused."""

    targets: Annotated[Codec, Choice(CODECS, what="targets")]
    layers: tuple[int, ...]
    hidden_precision: HiddenPrecision
    vocab: Annotated[int, Field(gt=0)]
    hidden: Annotated[int, Field(gt=0)]
    num_records: Annotated[int, Field(gt=0)]
    shard_records: Annotated[int, Field(gt=0)]
    batching: BatchingConfig
    corpus_hash: str
    tokenizer_hash: str
    template_hash: str
    teacher_hash: str

    @property
    def num_shards(self) -> int:
        """Files of targets."""
        return -(-self.num_records // self.shard_records)

    def records(self, shard: int) -> range:
        """The places of a file's records among all."""
        first = shard * self.shard_records
        return range(first, min(first + self.shard_records, self.num_records))

    def differences(self, other: "SignalsManifest") -> list[str]:
        """Names of what differs."""
        ours, theirs = self.model_dump(), other.model_dump()
        return [name.removesuffix("_hash") for name in ours if ours[name] != theirs[name]]


def fingerprints(corpus: Artifact) -> dict[str, str]:
    """Hashes of a corpus, of its tokenizer and of its chat template, by field."""
    opened = Corpus(corpus.path)
    tokenizer = load_tokenizer(opened.tokenizer_path)
    return {
        "tokenizer_hash": identify(tokenizer).fingerprint,
        "template_hash": hash_text(str(tokenizer.chat_template)),
        "corpus_hash": corpus.manifest.content_hash,
    }


def read_signals_manifest(folder: Path) -> SignalsManifest:
    """What stored signals are of.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    path = folder / SIGNALS_FILE
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {SIGNALS_FILE}; make it with a `record` entry")
    try:
        return SignalsManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); record it again") from None


def write_signals_manifest(
    folder: Path, manifest: SignalsManifest, *, record_ids: Int[np.ndarray, " records"]
) -> None:
    """Put `signals.json` and the ids of its records where there are none.

    Where a killed run left a `signals.json`, it must be the same.

    Raises:
        ArtifactError: the folder holds parts of other signals.
    """
    path = folder / SIGNALS_FILE
    if path.is_file():
        differing = manifest.differences(read_signals_manifest(folder))
        if differing:
            raise ArtifactError(
                f"{folder}: holds parts of signals with another {' and '.join(differing)}; delete "
                "the folder to record anew, or go on with what they were begun with"
            )
    np.save(folder / RECORD_IDS_FILE, record_ids.astype("<i8"))
    write_atomically(path, manifest.model_dump_json(indent=2))


def read_record_ids(folder: Path, manifest: SignalsManifest) -> Int[np.ndarray, " records"]:
    """The records that signals hold, ascending, in the order of the shards.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = folder / RECORD_IDS_FILE
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); record it again") from None
    if found.dtype.str != "<i8" or found.shape != (manifest.num_records,):
        raise ArtifactError(
            f"{path}: damaged: holds {found.dtype.str} {list(found.shape)}, expected <i8 "
            f"[{manifest.num_records}]; record it again"
        )
    return found


def shard_paths(folder: Path, manifest: SignalsManifest) -> list[Path]:
    """The files that a complete set of signals consists of."""
    return [folder / f"shard-{index:05d}.safetensors" for index in range(manifest.num_shards)]


DIFFERS = {
    "tokenizer": "the corpus's tokenizer has changed since; record them again from this corpus",
    "template": "the corpus's chat template has changed since; record them again from this corpus",
    "corpus": "its records are others now; record them again from this corpus",
    "loss_on": "give both stages the same, or record them again",
    "max_length": "give both stages the same, or record them again",
}


def check_fit(
    folder: Path, found: SignalsManifest, *, corpus: Artifact, batching: BatchingConfig
) -> None:
    """Refuse signals of another corpus, tokenizer or template, or of otherwise cut records.

    Raises:
        ArtifactError: names what differs.
    """
    expected = fingerprints(corpus)
    pairs: Iterable[tuple[str, object, object]] = (
        ("tokenizer", found.tokenizer_hash, expected["tokenizer_hash"]),
        ("template", found.template_hash, expected["template_hash"]),
        ("corpus", found.corpus_hash, expected["corpus_hash"]),
        ("loss_on", found.batching.loss_on, batching.loss_on),
        ("max_length", found.batching.max_length, batching.max_length),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise ArtifactError(
                f"{folder}: signals were recorded with {what} {theirs!r}, this stage uses "
                f"{ours!r}; {DIFFERS[what]}"
            )
