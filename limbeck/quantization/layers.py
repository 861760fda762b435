"""Linear layers and embeddings in a number format: stored, and rounding while they train.

What they compute is the format's; how they hold parameters and codes is the same for all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.tensors import QuantizedTensor, multiply_dequantized


@cache
def is_plain_linear(kind: type[nn.Linear]) -> bool:
    """Whether a class computes what `nn.Linear` does; some routers only have its weights."""
    if kind.forward is nn.Linear.forward:
        return True
    try:
        layer, given = kind(4, 3), torch.linspace(-1, 1, 8).view(2, 4)
        expected = functional.linear(given, layer.weight, layer.bias)
        return torch.allclose(layer(given), expected)
    except Exception:  # whatever a class that is built from a config meets
        return False


def anneal(
    weight: Float[Tensor, "*rows columns"],
    *,
    rounded: Float[Tensor, "*rows columns"],
    rounded_ratio: float,
) -> Float[Tensor, "*rows columns"]:
    """The weight with a share of what rounding changes; the gradient is that of the weight.

    w + lambda (Q(w) - w), the warm-up of Mekkouri et al. 2024
    (huggingface.co/blog/1_58_llm_extreme_quantization).
    """
    return weight + (rounded_ratio * (rounded - weight)).detach()


def set_rounded_ratio(model: nn.Module, ratio: float) -> None:
    """Let the prepared layers of a model round so much in training, from 0 (floats) to 1."""
    for module in model.modules():
        if isinstance(module, FakeQuantizedLinear | FakeQuantizedEmbedding):
            module.rounded_ratio = ratio


class QuantizedLinear(nn.Module):
    """A linear layer on codes; `weight` may be the same tensor as an embedding's."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    rounds_activations = True
    """As the format does; else they are multiplied as they are."""

    def __init__(
        self,
        stored: QuantizedTensor,
        *,
        number_format: QuantizedFormat,
        bias: Float[Tensor, " out"] | None,
    ) -> None:
        super().__init__()
        self.number_format = number_format
        self.out_features, self.in_features = len(stored.codes), stored.columns
        self.register_buffer("weight", stored.codes)
        self.register_buffer("weight_scale", stored.scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        """The product, in the dtype of the input."""
        stored = QuantizedTensor(self.weight, self.weight_scale, self.in_features)
        rows = x.reshape(-1, self.in_features).float()
        if self.rounds_activations:
            outputs = self.number_format.multiply(rows, weight=stored)
        else:
            outputs = multiply_dequantized(
                rows, weight=stored, dequantize=self.number_format.dequantize
            )
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*x.shape[:-1], self.out_features).to(x.dtype)


class QuantizedEmbedding(nn.Module):
    """A table of rows of codes, each with its scales."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self, stored: QuantizedTensor, *, number_format: QuantizedFormat, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.number_format = number_format
        self.factor = factor
        self.num_embeddings, self.embedding_dim = len(stored.codes), stored.columns
        self.register_buffer("weight", stored.codes)
        self.register_buffer("weight_scale", stored.scale)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """The rows, as float32."""
        rows = QuantizedTensor(self.weight[ids], self.weight_scale[ids], self.embedding_dim)
        return self.number_format.dequantize(rows) * self.factor


def embedding_factor(embedding: nn.Embedding) -> float:
    """What a table's rows are multiplied by where they are looked up: Gemma's by its width's root.

    Raises:
        CheckpointError: it computes something else.
    """
    if type(embedding).forward is nn.Embedding.forward:
        return 1.0
    factor = getattr(embedding, "embed_scale", None)
    if factor is None:
        raise CheckpointError(
            f"{type(embedding).__name__} does more than look rows up, so its table cannot be "
            "stored as codes; set the scheme's `embeddings: float32`"
        )
    is_number = not isinstance(factor, Tensor) or not factor.is_meta
    return float(factor) if is_number else 1.0  # of a model without numbers


@contextmanager
def unrounded_activations(model: nn.Module) -> Iterator[None]:
    """Within, a stored or prepared model rounds weights only, so that only they lose anything."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, QuantizedLinear | FakeQuantizedLinear)
    ]
    for layer in layers:
        layer.rounds_activations = False
    try:
        yield
    finally:
        for layer in layers:
            layer.rounds_activations = True


class FakeQuantizedLinear(nn.Module):
    """A linear layer that rounds as its stored form does; it holds the original parameters."""

    rounds_activations = True
    """As the format does; else they are multiplied as they are."""
    rounded_ratio = 1.0
    """Of what rounding changes, the share that is applied in training; otherwise it is all. Below 1
    activations are not rounded: what they lose is small beside it."""

    def __init__(self, linear: nn.Linear, *, number_format: QuantizedFormat) -> None:
        super().__init__()
        self.number_format = number_format
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        """What the stored layer computes, with gradients for input, weight and bias."""
        if self.training and self.rounded_ratio < 1:
            rounded = self.number_format.fake(self.weight.detach())
            weight = anneal(self.weight, rounded=rounded, rounded_ratio=self.rounded_ratio)
            outputs = functional.linear(x, weight)
        elif self.rounds_activations:
            outputs = self.number_format.fake_multiply(x, weight=self.weight)
        else:
            outputs = functional.linear(x, self.number_format.fake(self.weight))
        return (outputs if self.bias is None else outputs + self.bias).to(x.dtype)


class FakeQuantizedEmbedding(nn.Module):
    """An embedding that rounds as its stored form does; it holds the original parameter."""

    rounded_ratio = 1.0
    """As of a linear layer."""

    def __init__(self, embedding: nn.Embedding, *, number_format: QuantizedFormat) -> None:
        super().__init__()
        self.number_format = number_format
        self.factor = embedding_factor(embedding)
        self.original = (embedding,)
        """In a tuple, so that its parameter counts once."""
        self.padding_idx = embedding.padding_idx
        self.weight = embedding.weight

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Rounded rows; a row's scales need no other row, so only those looked up are rounded."""
        rows = functional.embedding(ids, self.weight, self.padding_idx)
        rounded = self.number_format.fake(rows)
        if self.training and self.rounded_ratio < 1:
            rounded = anneal(rows, rounded=rounded.detach(), rounded_ratio=self.rounded_ratio)
        return rounded * self.factor
