"""The tensors of a checkpoint for a writer of bundles, strictly: each taken once, none left.

Left out: whole models, which transformers loads.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open

from limbeck.contracts.errors import CheckpointError
from limbeck.models.weight_files import find_tensor, find_weight_files
from limbeck.quantization.formats.base import QuantizedFormat

CODES = {"I8": "int8", "U8": "uint8"}
"""What safetensors calls the integers of codes."""
TABLES = ("embed_tokens.weight", "lm_head.weight")
"""Endings of matrices that may have a format of their own."""
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DERIVED = ("rotary_emb.inv_freq",)
"""Endings of what old checkpoints hold although the config says it."""
BUFFERS = (".weight_scale", ".balance_bias")
"""Endings of tensors that are no parameters: nothing trains them by a gradient."""


@dataclass(frozen=True)
class Weights:
    """One matrix as stored: floats, or integers with scales."""

    rows: Shaped[np.ndarray, "out codes"]
    scale: Float[np.ndarray, "out blocks"] | None
    """One for each block of a row; None for floats."""
    bias: Float[np.ndarray, " out"] | None
    bits: int = 32
    """Of one number."""
    block: int | None = None
    """Numbers of a row that share a scale, of which the last block may have fewer; None is the
    whole row."""
    num_channels: int | None = None
    """Numbers of a row where a byte holds two of them; None: as many as are stored."""

    @property
    def channels(self) -> int:
        """Numbers of a row."""
        return self.rows.shape[1] if self.num_channels is None else self.num_channels


class Tensors:
    """The tensors of a checkpoint, each taken once."""

    def __init__(
        self, folder: Path, *, number_format: QuantizedFormat | None, is_tied: bool = False
    ) -> None:
        self._folder = folder
        self._format = number_format
        self.num_parameters = 0
        """Of the tensors taken so far; `BUFFERS` are not parameters."""
        self._files: dict[str, Path] = {}
        for path in find_safetensors(folder):
            with _opened(path) as file:
                names = [name for name in file.keys() if not name.endswith(DERIVED)]  # noqa: SIM118
                self._files |= dict.fromkeys(names, path)
        if is_tied:  # the loader has checked that a head beside the embeddings equals them
            self._files.pop(HEAD, None)

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is there and was not taken."""
        return name in self._files

    def take(self, name: str, *, shape: Sequence[int]) -> Shaped[np.ndarray, "..."]:
        """A tensor as the integers that it holds, or as float32.

        Raises:
            CheckpointError: it is missing or has another shape.
        """
        if name not in self._files:
            raise CheckpointError(
                f"{self._folder}: tensor {name!r} is missing; the config belongs to another model"
            )
        path = self._files.pop(name)
        with _opened(path) as file:
            tensor = file.get_tensor(name)
        if list(tensor.shape) != list(shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} is {list(tensor.shape)}, expected {list(shape)}; "
                "the config belongs to another model"
            )
        if not name.endswith(BUFFERS):
            self.num_parameters += tensor.numel()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            CheckpointError: some tensors were not taken.
        """
        if self._files:
            left = sorted(self._files)
            raise CheckpointError(
                f"{self._folder}: {len(left)} tensors belong to no part of the architecture: "
                f"{left[:5]}; the config belongs to another model"
            )

    def take_weights(self, module: str, *, out: int, channels: int) -> Weights:
        """The matrix of a module, with its scale and its bias where it has them."""
        stored = self.find_format(f"{module}.weight")
        num_codes = stored.num_codes(channels) if stored else channels
        rows = self.take(f"{module}.weight", shape=[out, num_codes])
        self.num_parameters += out * (channels - num_codes)
        scale = bias = None
        bits, block = 32, None
        if stored is not None:
            bits, block = int(stored.bits), stored.block
            blocks = -(-channels // (block or channels))
            scale = self.take(f"{module}.weight_scale", shape=[out, blocks])
        if self.has(f"{module}.bias"):
            bias = self.take(f"{module}.bias", shape=[out])
        return Weights(rows, scale, bias, bits, block, channels)

    def find_format(self, name: str) -> QuantizedFormat | None:
        """The format of a matrix of codes; None for floats."""
        if self._format is None or name not in self._files:
            return None
        with _opened(self._files[name]) as file:
            dtype = file.get_slice(name).get_dtype()
        is_table = name.endswith(TABLES)
        layer = name.removesuffix(".weight")
        found = self._format.table if is_table else self._format.for_layer(layer)
        return found if CODES.get(dtype) == found.codes_dtype else None


def stack(parts: Sequence[Weights]) -> list[Weights]:
    """Matrices of one input as one matrix, or as one for each run of the same format.

    Biases that some lack are completed.
    """
    return [
        _join(list(run))
        for _, run in itertools.groupby(parts, key=lambda part: (part.bits, part.block))
    ]


def _join(parts: Sequence[Weights]) -> Weights:
    scales = [part.scale for part in parts if part.scale is not None]
    biases = [
        np.zeros(len(part.rows), np.float32) if part.bias is None else part.bias for part in parts
    ]
    return Weights(
        rows=np.concatenate([part.rows for part in parts]),
        scale=np.concatenate(scales) if scales else None,
        bias=np.concatenate(biases) if any(part.bias is not None for part in parts) else None,
        bits=parts[0].bits,
        block=parts[0].block,
        num_channels=parts[0].num_channels,
    )


def find_safetensors(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights, for a writer.

    Raises:
        CheckpointError: they have another format, or other names than those of a whole model.
    """
    found = find_weight_files(folder)
    if other := [path.name for path in found if path.suffix != ".safetensors"]:
        raise CheckpointError(
            f"{folder}: bundles are written from safetensors files, and its weights are in "
            f"{other[0]}; load and save it with transformers, or export what an entry made of it"
        )
    if found and find_tensor(found, EMBEDDINGS) is None:
        raise CheckpointError(
            f"{folder}: tensor {EMBEDDINGS!r} is missing: the weights are those of a decoder "
            "without its head; load and save it with transformers, or export what an entry made "
            "of it"
        )
    return found or [folder / "model.safetensors"]


def _opened(path: Path) -> safe_open:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; copy the whole checkpoint folder")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged safetensors file ({error}); copy it again or make it again"
        ) from error
