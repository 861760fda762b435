"""Q4_K_M and Q6_K have llama.cpp's own types and rounding."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from transformers import Gemma3TextConfig, MixtralConfig, Qwen3Config

from limbeck.models.gguf.header import read_header
from limbeck.runtimes.architecture import describe_architecture
from limbeck.runtimes.gguf.mixes import choose_kind
from limbeck.runtimes.gguf.quantizer import KINDS, quantize
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from tests.support.gguf_bundles import measure
from tests.support.tiny_checkpoints import make_checkpoint

GEMMA_270M = Gemma3TextConfig(hidden_size=640, num_hidden_layers=18, layer_types=None)
MORE_BITS = {0, 1, 4, 7, 10, 13, 15, 16, 17}
"""Layers of the published Q4_K_M file of Gemma 3 270M whose sensitive matrices have more bits."""


def describe(config):
    return describe_architecture(
        config, number_format="float32", runtime=OnnxRuntime(), place="model"
    )


def test_gemmas_types_are_those_of_its_published_file():
    shape = describe(GEMMA_270M)

    def choose(name, columns):
        return choose_kind("Q4_K_M", name, columns=columns, architecture=shape)

    assert choose("token_embd.weight", 640) == Kind.Q8_0
    for layer in range(18):
        has_more = layer in MORE_BITS
        assert choose(f"blk.{layer}.attn_q.weight", 640) == Kind.Q5_0
        assert choose(f"blk.{layer}.attn_output.weight", 1024) == Kind.Q4_K
        assert choose(f"blk.{layer}.attn_v.weight", 640) == (Kind.Q8_0 if has_more else Kind.Q5_0)
        down = choose(f"blk.{layer}.ffn_down.weight", 2048)
        assert down == (Kind.Q6_K if has_more else Kind.Q4_K)


def test_an_untied_head_has_six_bits_and_the_embeddings_four():
    shape = describe(Qwen3Config(tie_word_embeddings=False, num_hidden_layers=2))
    for name, weights, kind in (
        ("output.weight", "Q4_K_M", Kind.Q6_K),
        ("token_embd.weight", "Q4_K_M", Kind.Q4_K),
        ("token_embd.weight", "Q6_K", Kind.Q6_K),
        ("blk.1.attn_v.weight", "Q6_K", Kind.Q6_K),
    ):
        assert choose_kind(weights, name, columns=256, architecture=shape) == kind


def test_eight_experts_leave_attention_more_bits():
    shape = describe(MixtralConfig(num_hidden_layers=2, sliding_window=None))
    for name, kind in (
        ("blk.0.attn_k.weight", Kind.Q8_0),
        ("blk.0.attn_output.weight", Kind.Q5_K),
        ("blk.0.ffn_up_exps.weight", Kind.Q4_K),
    ):
        assert choose_kind("Q4_K_M", name, columns=256, architecture=shape) == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rounding_changes_a_number_by_half_a_step(kind):
    rows = np.random.default_rng(0).uniform(-1, 1, size=(3, 2, 512)).astype(np.float32)
    packed = quantize(rows, kind=kind)
    block, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    assert packed.shape == (3, 2, 512 // block * num_bytes)
    found = gguf.dequantize(packed, kind)
    assert np.abs(found - rows).max() < 1.5 / 2 ** int(kind.name[1])


@pytest.mark.parametrize(
    ("weights", "limit", "types"),
    [
        ("Q6_K", 0.01, {"Q6_K", "F32"}),
        ("Q4_K_M", 0.05, {"Q4_K", "Q6_K", "F32"}),
    ],
)
def test_a_file_of_a_mix_predicts_nearly_as_its_checkpoint(weights, limit, types, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 256, "initializer_range": 0.05}
    make_checkpoint(tmp_path / "model", "qwen3", num_attention_heads=16, **sizes)
    bundle = GgufRuntime().write(tmp_path / "model", tmp_path / "bundle", weights=weights)
    assert {item.type for item in read_header(tmp_path / "bundle" / MODEL).tensors} == types
    assert bundle.format == {"Q6_K": "int6", "Q4_K_M": "int4"}[weights]
    assert measure(tmp_path / "model", tmp_path / "bundle").mean_kl < limit


def test_rows_of_other_lengths_have_blocks_of_32(tmp_path):
    make_checkpoint(tmp_path / "model", "qwen3")
    bundle = GgufRuntime().write(tmp_path / "model", tmp_path / "bundle", weights="Q4_K_M")
    types = {item.name: item.type for item in read_header(tmp_path / "bundle" / MODEL).tensors}
    assert types["blk.0.attn_q.weight"] == "Q5_0" and types["token_embd.weight"] == "Q8_0"
    assert bundle.runtime_settings["num_padded_channels"] == 16
    assert measure(tmp_path / "model", tmp_path / "bundle").mean_kl < 0.1
