"""Tokenised splits on disk: every stage after the first maps one into memory.

They lie in `.cache/tokens/` beside the corpus, so in the artifact store for a corpus of the store:
no content hash covers them, and listings of the store leave them out. The key of an entry is a hash
of all that its tokens depend on. `max_length` is no part of it: batches cut when they read.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import final

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import limbeck
from limbeck.contracts.artifacts import CACHE, MADE_FROM, hash_file, hash_text
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.records import Split
from limbeck.data.loading.tokenized import (
    AnswerField,
    RecordFlags,
    TokenizedSplit,
    tokenize_split,
)
from limbeck.models.chat_tokens import end_token_id
from limbeck.models.vision.image_processing import ImageFormat

LAYOUT = 3
"""Raised when the files of an entry, or what they hold, change."""
LIBRARIES = ("tokenizers", "transformers", "jinja2")
"""Those that make text and tokens of a record."""
UNREPEATABLE = ("strftime_now", "random")
"""Names in a chat template whose text can differ from one rendering to the next."""
FLAGS = ("has_question", "has_rejected", "has_images")
ARRAYS = ("tokens", "offsets", "answer_starts", "has_answer", "sources", "specialties")
WAIT_SECONDS = 1800
"""How long another process may hold an entry; after that, the file is tokenised here as well."""
INDEX = "index.json"
"""Names and images of an entry, and the SHA-256 of its arrays."""


@final
class TokenCache:
    """The tokenised splits of a corpus.

    Where they cannot be kept (a folder that is read only, a full disk, a tokenizer without a
    `tokenizers` backend, a template that shows the time), each loading tokenises anew.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.name = corpus.folder.resolve().name
        self.folder = corpus.folder.resolve().parent / CACHE / "tokens"

    def load(
        self,
        split: Split,
        *,
        tokenizer: PreTrainedTokenizerBase,
        image_format: ImageFormat | None = None,
        answers: AnswerField = "answer",
    ) -> TokenizedSplit:
        """What `tokenize_split` returns for a split of the corpus.

        Of several processes that load at once, one tokenises and the others wait for it.
        """
        path = self.corpus.records_path(split)

        def tokenize() -> TokenizedSplit:
            return tokenize_split(
                path, tokenizer=tokenizer, image_format=image_format, answers=answers
            )

        def hash_now() -> str | None:
            return hash_inputs(
                path, tokenizer=tokenizer, image_format=image_format, answers=answers
            )

        key = hash_now()
        if key is None:
            return tokenize()
        entry = self.folder / key
        found = _read(entry)
        if found is not None:
            return found
        with self._hold(key) as is_held:
            found = _read(entry) if is_held else None
            if found is None:
                found = tokenize()
                # A file that changed meanwhile would be kept under the hash of its old content.
                if is_held and key == hash_now():
                    self._write(found, entry=entry)
        return found

    @contextmanager
    def _hold(self, key: str) -> Iterator[bool]:
        """Hold an entry; False where that cannot be, so nothing may be written."""
        lock = FileLock(self.folder / f"{key}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=WAIT_SECONDS)
        except (OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _write(self, split: TokenizedSplit, *, entry: Path) -> None:
        """Put an entry in place by one renaming; nothing is left where that fails."""
        growing = entry.with_name(f"{entry.name}.new")
        try:
            for old in (growing, entry):
                if old.exists():
                    shutil.rmtree(old)
            growing.mkdir()
            (growing / MADE_FROM).write_text(json.dumps(self.name), encoding="utf-8")
            arrays = {name: vars(split)[name] for name in ARRAYS} | vars(split.flags)
            for name, array in arrays.items():
                np.save(growing / f"{name}.npy", array)
            index = {
                "source_names": split.source_names,
                "specialty_names": split.specialty_names,
                "images": list(split.images.items()),
                "files": {name: hash_file(growing / f"{name}.npy") for name in arrays},
            }
            (growing / INDEX).write_text(json.dumps(index), encoding="utf-8")
            growing.rename(entry)
        except (OSError, ArtifactError):
            shutil.rmtree(growing, ignore_errors=True)


def hash_inputs(
    path: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    image_format: ImageFormat | None,
    answers: AnswerField,
) -> str | None:
    """A hash of all that the tokens of a split depend on; None where that cannot be known."""
    if not path.is_file() or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    template = None if tokenizer.chat_template is None else tokenizer.get_chat_template()
    if template is not None and any(name in template for name in UNREPEATABLE):
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for setting in ("padding", "truncation"):
        backend.pop(setting)  # each call sets both, so they tell of the last call alone
    value = {
        "split": hash_file(path),
        "backend": backend,
        "class": type(tokenizer).__qualname__,
        "split_special_tokens": tokenizer.split_special_tokens,
        "template": template,
        "special_tokens": tokenizer.special_tokens_map,
        "end_token_id": end_token_id(tokenizer),
        "image_format": None if image_format is None else asdict(image_format),
        "answers": answers,
        "limbeck": [limbeck.__version__, LAYOUT],
        "libraries": [version(name) for name in LIBRARIES],
        "byte_order": sys.byteorder,
    }
    return hash_text(json.dumps(value, sort_keys=True))


def _read(entry: Path) -> TokenizedSplit | None:
    """An entry, its arrays mapped into memory; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((entry / INDEX).read_text(encoding="utf-8"))
        files = {name: entry / f"{name}.npy" for name in (*ARRAYS, *FLAGS)}
        if any(hash_file(path) != index["files"][name] for name, path in files.items()):
            return None
        arrays = {name: np.asarray(np.load(path, mmap_mode="r")) for name, path in files.items()}
        with suppress(OSError):
            os.utime(entry)  # removal goes by the last use
        return TokenizedSplit(
            **{name: arrays[name] for name in ARRAYS},
            flags=RecordFlags(**{name: arrays[name] for name in FLAGS}),
            source_names=tuple(index["source_names"]),
            specialty_names=tuple(index["specialty_names"]),
            images={record_id: tuple(files) for record_id, files in index["images"]},
        )
    return None
