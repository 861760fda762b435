"""The weights of a decoder as a GGUF file holds them: names, order of rows, numbers.

Float matrices are rounded by the `gguf` package or llama.cpp itself. INT8 and INT4 in blocks of 32
are Q8_0 and Q4_0 but for the scales, which are float16 there: the integers stay, scales are
rounded. Ternary weights in blocks of 256 are TQ2_0 and TQ1_0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from jaxtyping import Shaped

from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.runtimes.architecture import Architecture
from limbeck.runtimes.gguf.experts import list_experts
from limbeck.runtimes.gguf.families import FAMILIES
from limbeck.runtimes.gguf.limits import BLOCKS, CARRIED
from limbeck.runtimes.gguf.mixes import choose_kind, find_kind
from limbeck.runtimes.gguf.packing import BYTE, PACK, pad, permute_rows, round_rows, unpack
from limbeck.runtimes.mixture import Mixture
from limbeck.runtimes.tensors import Weights

ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
"""By llama.cpp's name."""


@runtime_checkable
class TensorSource(Protocol):
    """Where the numbers come from: a checkpoint's `Tensors`, or whatever has them."""

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        ...

    def find_format(self, name: str) -> QuantizedFormat | None:
        """The format of a matrix of integers; None for floats."""
        ...

    def take(self, name: str, *, shape: Sequence[int]) -> Shaped[np.ndarray, "..."]:
        """A tensor of this shape."""
        ...

    def take_weights(self, module: str, *, out: int, channels: int) -> Weights:
        """A module's matrix."""
        ...


@dataclass(frozen=True)
class Planned:
    """A tensor that is made when the file has come to it."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    make: Callable[[], Shaped[np.ndarray, "..."]]

    @property
    def num_bytes(self) -> int:
        """In the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * size


class TensorPlan:
    """Which tensors a file gets, in their order.

    `weights` is a key of the runtime's table. `floats` is the same, or F32 for a checkpoint of
    integers, which has its floats as they are.
    """

    def __init__(
        self, architecture: Architecture, *, tensors: TensorSource, weights: str, floats: str
    ) -> None:
        self._shape = architecture
        self._tensors = tensors
        self.weights = weights
        self._floats = floats
        self._family = FAMILIES[architecture.model_type]
        self._names = gguf.get_tensor_name_map(
            ARCHITECTURES[self._family.architecture], len(architecture.layers)
        )
        inner = architecture.intermediate_size if architecture.mixture is None else 0
        self.padding = -inner % BLOCKS.get(weights, 1)
        """Feed-forward channels of zeros, so that rows are whole blocks; they change no output."""
        self.max_scale_rounding = 0.0
        """The largest relative change of a scale."""

    def list(self) -> Iterator[Planned]:
        """Every tensor."""
        shape = self._shape
        width, vocab = shape.hidden_size, shape.vocab_size
        yield from self._matrix("model.embed_tokens", out=vocab, channels=width)
        for layer in range(len(shape.layers)):
            yield from self._layer(f"model.layers.{layer}")
        yield self._vector("model.norm.weight", width)
        if not shape.is_tied:
            yield from self._matrix("lm_head", out=vocab, channels=width)

    def _layer(self, name: str) -> Iterator[Planned]:
        conventions, mixture = self._shape.conventions, self._shape.mixture
        yield from self._norm(name, conventions.attention_norm)
        yield from self._attention(f"{name}.self_attn")
        yield from self._norm(name, conventions.attention_output_norm)
        yield from self._norm(name, conventions.feed_forward_norm)
        if mixture is None:
            inner, more = self._shape.intermediate_size, self.padding
            yield from self._feed_forward(f"{name}.mlp", inner=inner, more=more)
        else:
            yield from self._experts(f"{name}.{mixture.names.block}", mixture)
        yield from self._norm(name, conventions.feed_forward_output_norm)

    def _attention(self, name: str) -> Iterator[Planned]:
        shape = self._shape
        width, head = shape.hidden_size, shape.head_dim
        heads = {"q": shape.num_heads, "k": shape.num_key_value_heads}
        heads["v"] = heads["k"]
        if self._tensors.has(f"{name}.qkv_proj.weight"):
            out = sum(heads.values()) * head
            yield from self._matrix(f"{name}.qkv_proj", out=out, channels=width)
        else:
            for part, num_heads in heads.items():
                order = num_heads if part != "v" and self._family.reorders_rotary else 0
                yield from self._matrix(
                    f"{name}.{part}_proj",
                    out=num_heads * head,
                    channels=width,
                    permuted_heads=order,
                )
        for part in ("q", "k"):
            norm = f"{name}.{part}_norm.weight"
            if self._tensors.has(norm):
                whole = shape.conventions.norms_whole_projections
                yield self._vector(norm, heads[part] * head if whole else head)
        inputs = heads["q"] * head
        yield from self._matrix(f"{name}.o_proj", out=width, channels=inputs)

    def _feed_forward(self, name: str, *, inner: int, more: int) -> Iterator[Planned]:
        width = self._shape.hidden_size
        if self._tensors.has(f"{name}.gate_up_proj.weight"):
            yield from self._matrix(
                f"{name}.gate_up_proj", out=2 * inner, channels=width, more_rows=more, num_parts=2
            )
        else:
            for part in ("gate_proj", "up_proj"):
                yield from self._matrix(f"{name}.{part}", out=inner, channels=width, more_rows=more)
        yield from self._matrix(f"{name}.down_proj", out=width, channels=inner, more_channels=more)

    def _experts(self, block: str, mixture: Mixture) -> Iterator[Planned]:
        width = self._shape.hidden_size
        router = f"{block}.gate.weight"
        yield self._floats_of(router, (mixture.num_experts, width))
        for module, shape, make in list_experts(
            block, mixture=mixture, hidden_size=width, tensors=self._tensors
        ):
            name = self._stored(module)
            kind = choose_kind(self._floats, name, columns=shape[-1], architecture=self._shape)
            yield Planned(
                name,
                shape,
                kind,
                lambda make=make, kind=kind, module=module: round_rows(
                    make(), kind=kind, name=module
                ),
            )
        if mixture.shared_width:
            shared = f"{block}.shared_expert"
            yield from self._feed_forward(shared, inner=mixture.shared_width, more=0)
            yield self._floats_of(f"{shared}_gate.weight", (1, width))

    def _floats_of(self, name: str, shape: tuple[int, ...]) -> Planned:
        """A small matrix that stays float32."""

        def make() -> Shaped[np.ndarray, "..."]:
            return self._tensors.take(name, shape=shape)

        return Planned(self._stored(name), shape, Kind.F32, make)

    def _norm(self, layer: str, name: str) -> Iterator[Planned]:
        if name:
            yield self._vector(f"{layer}.{name}.weight", self._shape.hidden_size)

    def _stored(self, name: str) -> str:
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        return found

    def _vector(self, name: str, width: int) -> Planned:
        """A norm, by what it multiplies."""

        def make() -> Shaped[np.ndarray, "..."]:
            offset = np.float32(self._shape.conventions.norm_offset)
            return self._tensors.take(name, shape=[width]) + offset

        return Planned(self._stored(name), (width,), Kind.F32, make)

    def _matrix(
        self,
        module: str,
        *,
        out: int,
        channels: int,
        permuted_heads: int = 0,
        num_parts: int = 1,
        more_rows: int = 0,
        more_channels: int = 0,
    ) -> Iterator[Planned]:
        name = self._stored(f"{module}.weight")
        shape = (out + num_parts * more_rows, channels + more_channels)
        kind = choose_kind(self._floats, name, columns=shape[1], architecture=self._shape)
        stored = self._tensors.find_format(f"{module}.weight")
        if stored is not None:
            carried = CARRIED[stored.kind]
            kind = find_kind(self.weights if self.weights in carried else carried[0])
        has_bias = self._tensors.has(f"{module}.bias")
        biases: list[np.ndarray] = []

        def arrange(rows: Any) -> Any:
            return permute_rows(rows, num_heads=permuted_heads) if permuted_heads else rows

        def make() -> Shaped[np.ndarray, "..."]:
            weights = self._tensors.take_weights(module, out=out, channels=channels)
            if weights.bias is not None:
                biases.append(weights.bias)
            rows = arrange(weights.rows)
            if weights.scale is None:
                rows = pad(rows, rows=more_rows, columns=more_channels, num_parts=num_parts)
                return round_rows(rows, kind=kind, name=module)
            if weights.bits < BYTE:  # its last blocks are filled up already
                rows = unpack(rows, bits=weights.bits)
            else:
                rows = pad(rows, rows=0, columns=more_channels)
            rows, scale = (
                pad(item, rows=more_rows, columns=0, num_parts=num_parts)
                for item in (rows, arrange(weights.scale))
            )
            self._note_rounding(rows, scale)
            return PACK[kind](rows, scale.astype(np.float16))

        def make_bias() -> Shaped[np.ndarray, "..."]:
            (bias,) = biases  # of the matrix, which comes before
            column = arrange(bias[:, None])
            return pad(column, rows=more_rows, columns=0, num_parts=num_parts)[:, 0]

        yield Planned(name, shape, kind, make)
        if has_bias:
            yield Planned(self._stored(f"{module}.bias"), shape[:1], Kind.F32, make_bias)

    def _note_rounding(self, codes: np.ndarray, scale: np.ndarray) -> None:
        # A block of zeros has any scale.
        used = codes.reshape(*scale.shape, -1).any(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.abs(scale.astype(np.float16).astype(np.float32) / scale - 1)[used]
        self.max_scale_rounding = max(self.max_scale_rounding, float(change.max(initial=0.0)))
