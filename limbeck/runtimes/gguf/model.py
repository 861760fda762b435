"""A GGUF file in llama.cpp: its tokens, its logits, and decoding with a cache."""

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from limbeck.contracts.answerer import Size
from limbeck.contracts.errors import CheckpointError
from limbeck.models.session import Session
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.gguf.library import (
    FLASH_ATTENTION_OFF,
    TYPE_F32,
    Library,
    LlamaBatch,
    make_array,
    open_library,
)

SMALLEST_CELLS = 512
BATCH_TOKENS = 512
MOST_SEQUENCES = 256
"""That llama.cpp decodes at once."""
Placed = tuple[int, int, int, bool]
"""A token, its position, its sequence, and whether its logits are wanted."""


@final
class GgufFile:
    """A file as llama.cpp has loaded it.

    Raises:
        CheckpointError: llama.cpp cannot load it.
    """

    def __init__(self, path: Path, *, vocab_only: bool = False) -> None:
        self.library: Library = open_library()
        self.path = path
        params = self.library.call("model_default_params")
        params.num_gpu_layers = 0
        params.vocab_only = vocab_only
        with self.library.lock:
            self.library.take_log()
            self.handle = self.library.call("model_load_from_file", str(path).encode(), params)
            log = self.library.take_log()
        if not self.handle:
            raise CheckpointError(
                f"{path}: llama.cpp cannot load this file: {log[-600:]}; export the checkpoint "
                "again"
            )
        self._close = weakref.finalize(self, self.library.call, "model_free", self.handle)
        self._vocab = self.library.call("model_get_vocab", self.handle)

    @property
    def vocab_size(self) -> int:
        """Tokens of its vocabulary."""
        return self.library.call("vocab_n_tokens", self._vocab)

    def encode(self, text: str, *, adds_special: bool = False, parses_special: bool) -> list[int]:
        """The tokens of a text, special ones read as such where they are parsed."""
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self.library.call(
                "tokenize", self._vocab, data, len(data), tokens, room, adds_special, parses_special
            )
            if count >= 0:
                return tokens[:count]
            room = -count

    def ends_answers(self, token: int) -> bool:
        """Whether llama.cpp stops after this token."""
        return self.library.call("vocab_is_eog", self._vocab, token)


@final
class Context:
    """A cache of so many tokens, shared by so many sequences."""

    def __init__(
        self, file: GgufFile, *, num_cells: int, num_sequences: int, num_threads: int
    ) -> None:
        self._file = file  # the model has to live as long
        self._library = file.library
        params = self._library.call("context_default_params")
        params.num_cells = num_cells
        params.batch_tokens = params.micro_batch_tokens = min(BATCH_TOKENS, num_cells)
        params.num_sequences = num_sequences
        params.num_threads = params.num_batch_threads = num_threads
        params.flash_attention = FLASH_ATTENTION_OFF
        params.key_type = params.value_type = TYPE_F32
        params.is_unified = True
        self._handle = self._library.call("init_from_model", file.handle, params)
        if not self._handle:
            raise CheckpointError(
                f"{file.path}: llama.cpp has no room for {num_cells} tokens: "
                f"{self._library.take_log()[-300:]}"
            )
        weakref.finalize(self, self._library.call, "free", self._handle)
        self.num_cells: int = self._library.call("n_ctx", self._handle)
        self._memory = self._library.call("get_memory", self._handle)
        self._batch_tokens: int = self._library.call("n_batch", self._handle)

    def decode(self, placed: Sequence[Placed]) -> Float[np.ndarray, "wanted vocab"]:
        """Logits after those tokens for which they are wanted."""
        parts = [
            self._decode(placed[start : start + self._batch_tokens])
            for start in range(0, len(placed), self._batch_tokens)
        ]
        return np.concatenate(parts)

    def _decode(self, placed: Sequence[Placed]) -> Float[np.ndarray, "wanted vocab"]:
        tokens, positions, sequences, wanted = zip(*placed, strict=True)
        count, int32 = len(placed), ctypes.c_int32
        numbers = make_array(int32, sequences)
        size = ctypes.sizeof(int32)
        pointer = ctypes.POINTER(int32)
        each = [
            ctypes.cast(ctypes.addressof(numbers) + size * row, pointer) for row in range(count)
        ]
        batch = LlamaBatch(
            count,
            make_array(int32, tokens),
            None,
            make_array(int32, positions),
            make_array(int32, [1] * count),
            (pointer * count)(*each),
            make_array(ctypes.c_int8, wanted),
        )
        status = self._library.call("decode", self._handle, batch)
        if status:
            raise CheckpointError(
                f"{self._file.path}: llama.cpp failed to decode {count} tokens (status {status}): "
                f"{self._library.take_log()[-300:]}"
            )
        rows = [row for row, is_wanted in enumerate(wanted) if is_wanted]
        found = np.empty((len(rows), self._file.vocab_size), np.float32)
        for place, row in enumerate(rows):
            logits = self._library.call("get_logits_ith", self._handle, row)
            found[place] = np.ctypeslib.as_array(logits, shape=(self._file.vocab_size,))
        return found

    def forget(self, sequence: int) -> None:
        """Free a sequence's cells."""
        self._library.call("memory_seq_rm", self._memory, sequence, -1, -1)


@final
class GgufModel(LoadedModel):
    """A file in llama.cpp, as logits."""

    def __init__(self, file: GgufFile, *, size: Size, max_tokens: int, num_threads: int) -> None:
        self.max_tokens = max_tokens
        self.file = file
        self._size = size
        self._num_threads = num_threads

    @override
    def open_session(self, *, num_slots: int, max_prefix_bytes: int = 0) -> Session[np.ndarray]:
        """It keeps nothing of earlier rows."""
        del max_prefix_bytes
        return GgufSession(self.file, num_slots=num_slots, num_threads=self._num_threads)

    @override
    def compute_logits(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        assert not images
        context = Context(
            self.file,
            num_cells=max(map(len, rows)),
            num_sequences=1,
            num_threads=self._num_threads,
        )
        found = []
        for row in rows:
            placed = [(token, place, 0, place >= start) for place, token in enumerate(row)]
            found.append(context.decode(placed))
            context.forget(0)
        return found

    @override
    def size(self) -> Size:
        """Counts of the checkpoint, bytes of the file."""
        return self._size

    @override
    def num_threads(self) -> int:
        return self._num_threads


@final
class GgufSession(Session[np.ndarray]):
    """Decodes with one cache for all rows, which is made again at twice the size where it is full.

    llama.cpp takes the memory of a cache at once, so that room for every slot's longest row
    would be gigabytes that most answers do not need.
    """

    def __init__(self, file: GgufFile, *, num_slots: int, num_threads: int) -> None:
        super().__init__(num_slots=min(num_slots, MOST_SEQUENCES))
        self._file = file
        self._num_threads = num_threads
        self._context: Context | None = None
        self._rows: list[list[int]] = []
        self._sequences: list[int] = []

    @override
    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path],
        num_copies: int,
        owners: Sequence[str],
    ) -> Float[np.ndarray, "rows vocab"]:
        assert not images, "no file has an image encoder, so its chat renders no images"
        rows = [list(prompt) for prompt in prompts for _ in range(num_copies)]
        free = sorted(set(range(self.num_slots)) - set(self._sequences))[: len(rows)]
        context = self._make_room(sum(map(len, rows)))
        self._rows += rows
        self._sequences += free
        return context.decode(list(_place(rows, free)))

    @override
    def _decode(self, tokens: Sequence[int]) -> Float[np.ndarray, "rows vocab"]:
        context = self._make_room(len(tokens))
        placed = [
            (token, len(row), sequence, True)
            for token, row, sequence in zip(tokens, self._rows, self._sequences, strict=True)
        ]
        for token, row in zip(tokens, self._rows, strict=True):
            row.append(token)
        return context.decode(placed)

    @override
    def _keep_rows(self, rows: Sequence[int]) -> None:
        for row in set(range(len(self._rows))) - set(rows):
            assert self._context is not None
            self._context.forget(self._sequences[row])
        self._rows = [self._rows[row] for row in rows]
        self._sequences = [self._sequences[row] for row in rows]

    def _make_room(self, num_tokens: int) -> Context:
        """A context in which so many more tokens have room."""
        needed = sum(map(len, self._rows)) + num_tokens
        if self._context is None or needed > self._context.num_cells:
            num_cells = SMALLEST_CELLS
            while num_cells < needed:
                num_cells *= 2
            self._context = Context(
                self._file,
                num_cells=num_cells,
                num_sequences=self.num_slots,
                num_threads=self._num_threads,
            )
            if self._rows:
                self._context.decode(list(_place(self._rows, self._sequences)))
        return self._context


def _place(rows: Sequence[Sequence[int]], sequences: Sequence[int]) -> Any:
    """Every token of new rows; the logits after the last of each are wanted."""
    for row, sequence in zip(rows, sequences, strict=True):
        for place, token in enumerate(row):
            yield token, place, sequence, place == len(row) - 1
