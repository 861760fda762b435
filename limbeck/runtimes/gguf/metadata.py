"""What a GGUF file says of its model beside its vocabulary, and its tensors behind it."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from limbeck.models.gguf.header import ROTARY_FACTORS
from limbeck.runtimes.architecture import Architecture, Rotary
from limbeck.runtimes.gguf.attention import find_factor, find_factors, find_period, find_window
from limbeck.runtimes.gguf.families import FAMILIES
from limbeck.runtimes.gguf.tensors import Planned, TensorPlan
from limbeck.runtimes.gguf.vocabulary import GgufVocabulary
from limbeck.runtimes.mixture import Mixture

FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "TQ2_0": gguf.LlamaFileType.MOSTLY_TQ2_0,
    "TQ1_0": gguf.LlamaFileType.MOSTLY_TQ1_0,
    "Q4_K_M": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "Q6_K": gguf.LlamaFileType.MOSTLY_Q6_K,
}


PHI_NAMES = ("phi-3", "phi3")
"""In a model whose name holds one, llama.cpp takes the blank behind special tokens for theirs."""
PHI_TOKENS = frozenset({"</s>", "<unk>", "<s>", "<|endoftext|>"})
"""Without these it does not load such a model at all."""


class ModelMetadata:
    """The header of a file, for a model that `check_model` has accepted."""

    def __init__(self, architecture: Architecture, *, plan: TensorPlan, name: str) -> None:
        self._shape = architecture
        self._family = FAMILIES[architecture.model_type]
        self._plan = plan
        self._name = name

    def write(self, path: Path, *, vocabulary: GgufVocabulary, tensors: Sequence[Planned]) -> None:
        """Write a file, its tensors one after another."""
        writer = gguf.GGUFWriter(path, self._family.architecture)
        try:
            writer.add_name(_choose_name(self._name, tokens=vocabulary.tokens))
            self._describe(writer)
            vocabulary.write(writer)
            if tensors:
                tensors = [*self._plan_factors(), *tensors]
            for item in tensors:
                writer.add_tensor_info(
                    item.name, item.shape, np.dtype(np.float32), item.num_bytes, item.kind
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for item in tensors:
                writer.write_tensor_data(np.ascontiguousarray(item.make()))
        finally:
            writer.close()

    def _plan_factors(self) -> list[Planned]:
        """Factors of rotary pairs, where they are more than one number."""
        factors = find_factors(self._shape.rotaries[0])
        if find_factor(self._shape.rotaries[0]) is not None:
            return []
        return [Planned(ROTARY_FACTORS, factors.shape, Kind.F32, lambda: factors)]

    def _describe(self, writer: gguf.GGUFWriter) -> None:
        shape = self._shape
        writer.add_type("model")
        writer.add_context_length(shape.max_tokens)
        writer.add_embedding_length(shape.hidden_size)
        writer.add_block_count(len(shape.layers))
        inner = shape.intermediate_size if shape.mixture is None else shape.mixture.width
        writer.add_feed_forward_length(inner + self._plan.padding)
        writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
        writer.add_vocab_size(shape.vocab_size)
        writer.add_file_type(FILE_TYPES[self._plan.weights])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        self._describe_scales(writer)
        self._describe_attention(writer)
        if shape.mixture is not None:
            self._describe_experts(writer, shape.mixture)

    def _describe_scales(self, writer: gguf.GGUFWriter) -> None:
        shape = self._shape
        if shape.attention_softcap:
            writer.add_attn_logit_softcapping(shape.attention_softcap)
        if shape.logit_softcap:
            writer.add_final_logit_softcapping(shape.logit_softcap)
        if "residual_scale" in self._family.optional:
            writer.add_attention_scale(shape.attention_scale)
            writer.add_embedding_scale(shape.embedding_scale)
            writer.add_logit_scale(1 / shape.logit_scale)
            writer.add_residual_scale(shape.residual_scale)

    def _describe_experts(self, writer: gguf.GGUFWriter, mixture: Mixture) -> None:
        writer.add_expert_count(mixture.num_experts)
        writer.add_expert_used_count(mixture.picks)
        writer.add_expert_feed_forward_length(mixture.width)
        if mixture.shared_width:
            writer.add_expert_shared_feed_forward_length(mixture.shared_width)

    def _describe_attention(self, writer: gguf.GGUFWriter) -> None:
        shape = self._shape
        writer.add_head_count(shape.num_heads)
        writer.add_head_count_kv(shape.num_key_value_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        rotary = self._find_rotary(is_windowed=False)
        writer.add_rope_dimension_count(2 * len(rotary.frequencies))
        writer.add_rope_freq_base(rotary.theta)
        factor = find_factor(rotary)
        if factor is not None and factor != 1:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(factor)
        period = find_period(shape)
        if period == 1 and self._family.always_has_windows:
            period = 0  # windows that hide nothing
        if self._family.takes_windows and period != 1:
            assert period is not None, "check_model refuses it"
            # A window that hides nothing is stated too, because positions depend on it.
            writer.add_sliding_window(find_window(shape) or shape.max_tokens)
            writer.add_sliding_window_pattern(period)
            writer.add_rope_freq_base_swa(self._find_rotary(is_windowed=True).theta)

    def _find_rotary(self, *, is_windowed: bool) -> Rotary:
        """Positions of the layers with or without a window; of the others where there are none."""
        rotaries = self._shape.rotaries
        for layer in self._shape.layers:
            if (layer.window is not None) == is_windowed and layer.rotary is not None:
                return rotaries[layer.rotary]
        return rotaries[0]


def _choose_name(name: str, *, tokens: Sequence[str]) -> str:
    if any(part in name.lower() for part in PHI_NAMES) and not PHI_TOKENS.issubset(tokens):
        return "model"
    return name
