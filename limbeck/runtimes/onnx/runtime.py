"""The ONNX runtime: a bundle answers with onnxruntime, numpy and the tokenizer's own files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast, final

import numpy as np
from jaxtyping import Float, Int
from typing_extensions import override

from limbeck.contracts.answerer import Answerer, Size
from limbeck.contracts.errors import CheckpointError
from limbeck.models.session import Session
from limbeck.quantization.formats.base import Format
from limbeck.quantization.formats.floats import Float32
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.packed import PackedFormat
from limbeck.runtimes.base import LoadedModel, Runtime
from limbeck.runtimes.bundle import Bundle, read_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.greedy import GreedyAnswerer
from limbeck.runtimes.onnx.cache import RowCaches
from limbeck.runtimes.onnx.prefix_cache import Prefix, PrefixCache

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

MODEL = "model.onnx"
FATAL = 4
"""Log level: onnxruntime also raises what it would log."""

Cache = Float[np.ndarray, "rows heads _ head_dim"]
"""Keys or values of one layer."""


@final
class OnnxRuntime(Runtime):
    """ONNX Runtime on a CPU; a bundle is one decoder graph with the tokenizer's files."""

    name: ClassVar[str] = "onnx"
    architectures: ClassVar[frozenset[str] | Literal["any"]] = frozenset(
        {
            "gemma2",
            "gemma3_text",
            "glm4",
            "granite",
            "limbeck_moe",
            "llama",
            "mistral",
            "mixtral",
            "olmo2",
            "olmoe",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "smollm3",
        }
    )

    @override
    def supports(self, number_format: Format) -> bool:
        return isinstance(number_format, Float32 | Int8 | PackedFormat)

    @override
    def write(self, checkpoint: Path, folder: Path, *, weights: str = "format") -> Bundle:
        assert weights in self.weights
        from limbeck.runtimes.onnx.writer import write  # noqa: PLC0415  (torch and onnx)

        return write(checkpoint, folder)

    @override
    def open_model(self, folder: Path, *, num_threads: int) -> "OnnxModel":
        import onnxruntime  # noqa: PLC0415  (a recipe is checked without it)

        bundle = read_bundle(folder)
        path = folder / MODEL
        if not path.is_file():
            raise CheckpointError(f"{folder}: no {MODEL}; export the checkpoint again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        try:
            graph = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
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
        return OnnxModel(graph, size=size, max_tokens=bundle.max_tokens, num_threads=num_threads)

    @override
    def read(self, folder: Path, *, num_threads: int) -> Answerer:
        model = self.open_model(folder, num_threads=num_threads)
        return GreedyAnswerer(model, chat=read_chat(folder))


@final
class OnnxModel(LoadedModel):
    """A decoder graph."""

    def __init__(
        self,
        graph: "InferenceSession",
        *,
        size: Size,
        max_tokens: int,
        num_threads: int,
    ) -> None:
        self.max_tokens = max_tokens
        self._graph = DecoderGraph(graph)
        self._size = size
        self._num_threads = num_threads

    @override
    def open_session(self, *, num_slots: int, max_prefix_bytes: int = 0) -> Session[np.ndarray]:
        return OnnxSession(self._graph, num_slots=num_slots, max_prefix_bytes=max_prefix_bytes)

    @override
    def compute_logits(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        assert not images
        ids, lengths = _pad_right(rows)
        places = [
            row * ids.shape[1] + np.arange(start, length) for row, length in enumerate(lengths)
        ]
        logits, _ = self._graph.run(ids, lengths=lengths, kept=np.concatenate(places))
        return np.split(logits, np.cumsum([len(place) for place in places])[:-1])

    @override
    def size(self) -> Size:
        """Counts of the checkpoint, bytes of the graph file."""
        return self._size

    @override
    def num_threads(self) -> int:
        return self._num_threads


@final
class DecoderGraph:
    """The graph's inputs and outputs.

    Raises:
        CheckpointError: it is no decoder that `decoder.py` wrote.
    """

    def __init__(self, session: "InferenceSession") -> None:
        self._session = session
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
        _, self._heads, _, self._head_dim = caches[0].shape

    def run(
        self,
        ids: Int[np.ndarray, "rows tokens"],
        *,
        lengths: Int[np.ndarray, " rows"],
        kept: Int[np.ndarray, " kept"],
        past: list[Cache] | None = None,
    ) -> tuple[Float[np.ndarray, "kept vocab"], list[Cache]]:
        """Logits at the kept places of the flattened tokens, and the longer cache.

        Rows are padded on the right; `lengths` are theirs, those of earlier tokens included.
        """
        if past is None:
            past = [np.zeros((len(ids), self._heads, 0, self._head_dim), np.float32)] * len(
                self._past
            )
        feeds = {
            "input_ids": ids,
            "last_positions": (lengths - 1).astype(np.int32),
            "total_tokens": np.array(lengths.max(), np.int32),
            "kept": kept,
            **dict(zip(self._past, past, strict=True)),
        }
        outputs = self._session.run(["logits", *self._present], feeds)
        logits, *present = cast(list[np.ndarray], outputs)
        return logits, present

    def open_caches(self) -> RowCaches:
        """Room for rows of this graph; none yet."""
        return RowCaches(num_caches=len(self._past), num_heads=self._heads, head_dim=self._head_dim)

    def extend(
        self, caches: RowCaches, *, tokens: Sequence[int], lengths: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "rows vocab"]:
        """Logits after one more token of each row, whose keys and values the caches then hold.

        `lengths` are those of the rows with that token.
        """
        caches.reserve(num_tokens=int(lengths.max()))
        binding = caches.bind(lambda: self._bind(caches))
        placed = np.argsort(caches.places)
        feeds = {
            "input_ids": np.array(tokens, np.int64)[placed, None],
            "last_positions": (lengths[placed] - 1).astype(np.int32),
            "total_tokens": np.array(lengths.max(), np.int32),
            "kept": np.arange(len(tokens)),
        }
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()[caches.places]

    def _bind(self, caches: RowCaches) -> "IOBinding":
        """Inputs and outputs that are the same memory: the attention node copies nothing then."""
        from onnxruntime import OrtValue  # noqa: PLC0415  (a recipe is checked without it)

        binding = self._session.io_binding()
        binding.bind_output("logits")
        for past, present, view in zip(self._past, self._present, caches.views(), strict=True):
            value = OrtValue.ortvalue_from_numpy(view)
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        return binding


@final
class OnnxSession(Session[np.ndarray]):
    """Decodes with a graph.

    What rows that have left began with is not read again: see `prefix_cache`.
    """

    def __init__(self, graph: DecoderGraph, *, num_slots: int, max_prefix_bytes: int = 0) -> None:
        super().__init__(num_slots=num_slots)
        self._graph = graph
        self._caches = graph.open_caches()
        self._lengths = np.zeros(0, np.int64)
        self._tokens: list[list[int]] = []
        self._owners: list[str] = []
        self._prefixes = PrefixCache(max_bytes=max_prefix_bytes)
        self._found: list[int] = []

    @override
    def _num_known(self) -> Sequence[int]:
        return self._found

    @override
    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path],
        num_copies: int,
        owners: Sequence[str],
    ) -> Float[np.ndarray, "rows vocab"]:
        assert not images, "no graph has an image encoder, so its chat renders no images"
        prefixes = [
            self._prefixes.find(prompt, owner=owner)
            for prompt, owner in zip(prompts, owners, strict=True)
        ]
        self._found = [prefix.num_tokens if prefix else 0 for prefix in prefixes]
        if any(prefixes):
            # The attention node goes on from an earlier cache with several tokens in one row only.
            read = [
                self._read([prompt], prefix=prefix)
                for prompt, prefix in zip(prompts, prefixes, strict=True)
            ]
        else:
            read = [self._read(prompts)]
        lengths = np.array([len(prompt) for prompt in prompts])
        self._lengths = np.concatenate([self._lengths, np.repeat(lengths, num_copies)])
        for _, cache in read:
            self._caches.add(cache, num_copies=num_copies)
        self._tokens += [list(prompt) for prompt in prompts for _ in range(num_copies)]
        self._owners += [owner for owner in owners for _ in range(num_copies)]
        return np.repeat(np.concatenate([logits for logits, _ in read]), num_copies, axis=0)

    def _read(
        self, prompts: Sequence[Sequence[int]], *, prefix: Prefix | None = None
    ) -> tuple[Float[np.ndarray, "rows vocab"], list[Cache]]:
        """Logits after prompts, and their rows' caches; only one may go on from a prefix."""
        num_known = prefix.num_tokens if prefix else 0
        ids, lengths = _pad_right([prompt[num_known:] for prompt in prompts])
        kept = np.arange(len(prompts)) * ids.shape[1] + lengths - 1
        past = prefix.cache if prefix else None
        return self._graph.run(ids, lengths=lengths + num_known, kept=kept, past=past)

    @override
    def _decode(self, tokens: Sequence[int]) -> Float[np.ndarray, "rows vocab"]:
        self._lengths = self._lengths + 1
        logits = self._graph.extend(self._caches, tokens=tokens, lengths=self._lengths)
        for row, token in zip(self._tokens, tokens, strict=True):
            row.append(token)
        return logits

    @override
    def _keep_rows(self, rows: Sequence[int]) -> None:
        for row in sorted(set(range(len(self._tokens))) - set(rows)):
            tokens = self._tokens[row]
            self._prefixes.put(
                tokens, self._caches.row(row, length=len(tokens)), owner=self._owners[row]
            )
        self._tokens = [self._tokens[row] for row in rows]
        self._owners = [self._owners[row] for row in rows]
        self._lengths = self._lengths[list(rows)]
        self._caches.keep(rows)


def _pad_right(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[np.ndarray, "rows width"], Int[np.ndarray, " rows"]]:
    """Rows padded to one length, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids, lengths
