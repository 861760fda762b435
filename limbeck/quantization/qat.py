"""INT8 quantisation-aware training: preparing a float model, and converting it to integers.

Nothing is observed or calibrated: weight scales follow the weights at every step, activation scales
are computed per token when they are needed.
"""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.int8 import describe, find_quantized, is_int8, quantize_in_place
from limbeck.quantization.layers import fake_quantize, fake_quantized_linear


class FakeQuantizedLinear(nn.Module):
    """A linear layer that rounds like its integer form; it holds the original parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        """The product of the rounded input and the rounded weight."""
        return fake_quantized_linear(x, weight=self.weight, bias=self.bias)


class FakeQuantizedEmbedding(nn.Module):
    """An embedding that rounds like its integer form; it holds the original parameter."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings = embedding.num_embeddings
        self.embedding_dim = embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        self.weight = embedding.weight

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Rounded rows; a row's scale needs no other row, so only those looked up are rounded."""
        return fake_quantize(functional.embedding(ids, self.weight, self.padding_idx))


class Int8(Config):
    """Weights in int8 per output channel, activations in int8 per token (W8A8)."""

    kind: Literal["int8"]
    embeddings: Literal["int8", "float32"] = "int8"
    """The token table and the language head; float32 keeps both, in the compressed-tensors format
    that stock readers understand, at four times their bytes."""

    def prepare_for_qat(self, model: PreTrainedModel) -> None:
        """Make a float model round as its INT8 form will; its parameters and names stay.

        Raises:
            CheckpointError: the model is quantised already.
        """
        _refuse_quantized(model)
        for name, module in list(find_quantized(model, described=self._describe())):
            if isinstance(module, nn.Embedding):
                model.set_submodule(name, FakeQuantizedEmbedding(module))
            elif isinstance(module, nn.Linear):
                model.set_submodule(name, FakeQuantizedLinear(module))

    def convert(self, model: PreTrainedModel) -> PreTrainedModel:
        """The same model, changed in place to integers; prepared for training or not.

        Raises:
            CheckpointError: the model is quantised already.
        """
        _refuse_quantized(model)
        restore_float(model)
        described = self._describe()
        quantize_in_place(model, described=described)
        model.config.quantization_config = described
        return model.eval()

    def _describe(self) -> dict:
        ignore = () if self.embeddings == "int8" else ("lm_head",)
        return describe(embeddings=self.embeddings, ignore=ignore)


def restore_float(model: nn.Module) -> None:
    """Undo the preparation: plain layers again, holding the trained parameters."""
    for name, module in list(model.named_modules()):
        if isinstance(module, FakeQuantizedEmbedding):
            num, hidden = module.num_embeddings, module.embedding_dim
            plain = nn.Embedding(num, hidden, module.padding_idx, device="meta")
            plain.weight = module.weight
            model.set_submodule(name, plain)
        elif isinstance(module, FakeQuantizedLinear):
            linear = nn.Linear(module.in_features, module.out_features, False, device="meta")
            linear.weight = module.weight
            linear.bias = module.bias
            model.set_submodule(name, linear)


def _refuse_quantized(model: PreTrainedModel) -> None:
    if getattr(model.config, "quantization_config", None) is not None:
        kind = "int8" if is_int8(model.config.to_dict()) else "quantised"
        raise CheckpointError(
            f"the model is {kind} already: its integers cannot be trained; name the floating-point "
            "checkpoint it was made from"
        )
