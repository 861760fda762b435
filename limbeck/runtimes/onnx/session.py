"""Answering with an ONNX bundle: onnxruntime, numpy and the tokenizer's own files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from jaxtyping import Float, Int

from limbeck.contracts.answerer import Answerer, Size
from limbeck.contracts.errors import CheckpointError
from limbeck.runtimes.bundle import read_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.greedy import GreedyAnswerer, Steps

MODEL = "model.onnx"
FATAL = 4
"""Log level: onnxruntime also raises what it would log."""


def read(folder: Path, *, num_threads: int) -> Answerer:
    """The bundle in a folder, ready to answer.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    return GreedyAnswerer(open_steps(folder, num_threads=num_threads), chat=read_chat(folder))


def open_steps(folder: Path, *, num_threads: int) -> "OnnxSteps":
    """The graph in a bundle folder, without its tokenizer."""
    bundle = read_bundle(folder)
    path = folder / MODEL
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {MODEL}; export the checkpoint again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise CheckpointError(
            f"{path}: damaged graph ({str(error)[:300]}); export the checkpoint again"
        ) from error
    files = path.parent.glob(f"{MODEL}*")
    size = Size(
        parameters=bundle.parameters,
        active_parameters=bundle.active_parameters,
        weight_bytes=sum(file.stat().st_size for file in files),
    )
    return OnnxSteps(session, size=size, max_tokens=bundle.max_tokens, num_threads=num_threads)


@dataclass
class _State:
    cache: dict[str, np.ndarray]
    last_positions: Int[np.ndarray, " batch"]
    """Place of each row's latest token; rows are padded on the right."""
    total_tokens: int
    """Places in the cache, padding included."""


class OnnxSteps(Steps):
    """A decoder graph with its KV cache."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        size: Size,
        max_tokens: int,
        num_threads: int,
    ) -> None:
        self.max_tokens = max_tokens
        self._session = session
        self._size = size
        self._num_threads = num_threads
        caches = [item for item in session.get_inputs() if item.name.startswith("past.")]
        self._past = [item.name for item in caches]
        self._present = [name.replace("past", "present") for name in self._past]
        expected = {"input_ids", "last_positions", "total_tokens", "kept", *self._past}
        found = {item.name for item in session.get_inputs()}
        outputs = {item.name for item in session.get_outputs()}
        if not caches or found != expected or outputs != {"logits", *self._present}:
            raise CheckpointError(
                f"the graph has inputs {sorted(found)[:6]} and is no decoder of Limbeck; export "
                "the checkpoint again"
            )
        _, self._heads, _, self._width = caches[0].shape

    def start(
        self, prompts: Sequence[Sequence[int]], images: Sequence[Path] = ()
    ) -> tuple[Float[np.ndarray, "batch vocab"], "_State"]:
        """Logits after each prompt, and the state that `advance` goes on from; no graph sees."""
        assert not images
        ids, lengths = _pad(prompts)
        state = self._empty(lengths, total_tokens=ids.shape[1])
        kept = np.arange(len(prompts)) * ids.shape[1] + lengths - 1
        return self._step(ids, state, kept), state

    def advance(
        self, tokens: Int[np.ndarray, " batch"], state: "_State"
    ) -> Float[np.ndarray, "batch vocab"]:
        """Logits after one more token of each row; changes the state."""
        state.last_positions += 1
        state.total_tokens += 1
        return self._step(tokens[:, None], state, np.arange(len(tokens)))

    def compute(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Logits at every position of each row from `start` on."""
        assert not images
        ids, lengths = _pad(rows)
        places = [
            row * ids.shape[1] + np.arange(start, length) for row, length in enumerate(lengths)
        ]
        state = self._empty(lengths, total_tokens=ids.shape[1])
        logits = self._step(ids, state, np.concatenate(places))
        return np.split(logits, np.cumsum([len(place) for place in places])[:-1])

    def _empty(self, lengths: np.ndarray, *, total_tokens: int) -> "_State":
        nothing = np.zeros((len(lengths), self._heads, 0, self._width), np.float32)
        return _State(
            dict.fromkeys(self._past, nothing), (lengths - 1).astype(np.int32), total_tokens
        )

    def _step(self, ids: np.ndarray, state: "_State", kept: np.ndarray) -> np.ndarray:
        feeds = {
            "input_ids": ids,
            "last_positions": state.last_positions,
            "total_tokens": np.array(state.total_tokens, np.int32),
            "kept": kept,
            **state.cache,
        }
        outputs = self._session.run(["logits", *self._present], feeds)
        logits, *cache = cast(list[np.ndarray], outputs)
        state.cache = dict(zip(self._past, cache, strict=True))
        return logits

    def size(self) -> Size:
        """Counts of the checkpoint, bytes of the graph file."""
        return self._size

    def num_threads(self) -> int:
        """CPU threads in use."""
        return self._num_threads


def _pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded on the right to one length, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids, lengths
