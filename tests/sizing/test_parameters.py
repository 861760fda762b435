"""Sizes are those of models that are really built; huge models are sized without memory."""

import dataclasses
import math
import resource

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    DeepseekV3Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    T5Config,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.fusion import build_fusion
from limbeck.models.vocabulary import Vocabulary
from limbeck.quantization.formats.base import list_formats
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.quantization.storage import save_quantized
from limbeck.sizing.attention import find_number
from limbeck.sizing.hardware import estimate_training_seconds
from limbeck.sizing.machine_speed import measure_speed
from limbeck.sizing.number_formats import fit_budget
from limbeck.sizing.parameters import size_model

DENSE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
SPARSE = DENSE | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@pytest.mark.parametrize("tied", [True, False])
def test_dense_sizes_are_those_of_the_built_model(tied):
    config = Qwen3Config(**DENSE, tie_word_embeddings=tied)
    built = sum(item.numel() for item in Qwen3ForCausalLM(config).parameters())
    size = size_model(config, context_tokens=64)
    assert size.parameters == size.active_parameters == built
    assert size.embedding_parameters == 96 * 32 * (1 if tied else 2)
    assert size.expert_parameters == size.gate_parameters == size.skipped_ratio == 0
    by_name = {item.name: item for item in size.formats}
    assert by_name["float32"].total_bytes == 4 * built
    assert by_name["bfloat16"].total_bytes == 2 * built
    assert by_name["float32"].embedding_bytes == 4 * size.embedding_parameters
    assert by_name["ternary"].embedding_format == "int4"


def test_a_mixture_counts_picked_experts_and_the_gate():
    config = Qwen3MoeConfig(**SPARSE)
    model = Qwen3MoeForCausalLM(config)
    size = size_model(config, context_tokens=1)
    experts = 3 * 8 * 3 * 24 * 32
    assert size.parameters == sum(item.numel() for item in model.parameters())
    assert size.expert_parameters == experts
    assert size.gate_parameters == 3 * 8 * 32
    assert size.active_parameters == size.parameters - experts * 6 // 8
    used = experts / 4 + 3 * 8 * 32
    assert size.skipped_ratio == pytest.approx(1 - used / (experts + 3 * 8 * 32))


def test_our_mixture_equals_the_reference(moe, moe_config, tokenizer):
    size = size_model(moe_config.describe(Vocabulary.of(tokenizer)), context_tokens=10)
    assert size.parameters == sum(item.numel() for item in moe.parameters())
    config = moe.config
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
        "num_key_value_heads",
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "tie_word_embeddings",
    )
    plain = Qwen3MoeConfig(**{name: getattr(config, name) for name in names})
    assert dataclasses.asdict(size_model(plain, context_tokens=10)) == dataclasses.asdict(size)


def count_flops(model, *, tokens):
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros(1, tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_a_counter_counts(tied):
    config = LlamaConfig(**DENSE, tie_word_embeddings=tied, attn_implementation="eager")
    model = LlamaForCausalLM(config)
    # Without a causal shortcut every token attends to the whole sequence.
    assert count_flops(model, tokens=32) == 32 * size_model(config, context_tokens=32).forward_flops


def test_training_costs_three_forwards_at_half_the_context():
    config = Qwen3Config(**DENSE)
    size, half = (size_model(config, context_tokens=tokens) for tokens in (63, 32))
    assert size.training_flops == pytest.approx(3 * half.forward_flops)


def test_a_window_bounds_attention_and_the_cache_counts_key_value_heads():
    config = Qwen3Config(**DENSE)
    windowed = Qwen3Config(**DENSE, use_sliding_window=True, sliding_window=16, max_window_layers=0)
    near, far = (size_model(windowed, context_tokens=tokens) for tokens in (16, 4096))
    assert near.forward_flops == far.forward_flops
    assert size_model(config, context_tokens=16).forward_flops == near.forward_flops
    assert size_model(config, context_tokens=4096).forward_flops > far.forward_flops
    assert near.kv_cache_bytes == 3 * 2 * 2 * 16 * 2


def test_int8_bytes_are_those_on_disk(dense, tmp_path):
    size = size_model(dense.config, context_tokens=8)
    save_quantized(convert(dense, number_format=Int8(kind="int8")), tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    expected = next(item for item in size.formats if item.name == "int8")
    assert expected.total_bytes == sum(item.nbytes for item in stored.values())


def test_scales_of_blocks_are_counted():
    formats = list_formats()
    assert formats["int4"].num_bits(rows=3, columns=129) == 3 * 5 * 32 * (
        4 + 1
    )  # five whole blocks
    assert formats["int2"].num_bits(rows=3, columns=129) == 3 * 3 * (64 * 2 + 16)
    assert formats["ternary"].num_bits(rows=3, columns=129) == 3 * (256 * 2 + 16)
    assert formats["int8"].num_bits(rows=3, columns=50) == 3 * (400 + 2 * 32)
    row = Int8(kind="int8", block_size="row")
    assert row.num_bits(rows=3, columns=50) == 3 * (400 + 32)
    assert list(formats) == ["float32", "bfloat16", "int8", "int4", "int2", "ternary"]


@pytest.fixture(scope="module")
def billions():
    """Dense decoders of about 6 B and 3 B parameters, with a tied vocabulary of 32k."""
    shape = {
        "vocab_size": 32768,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
    six = Qwen3Config(
        **shape,
        hidden_size=4096,
        num_hidden_layers=35,
        num_attention_heads=32,
        intermediate_size=10240,
    )
    three = Qwen3Config(
        **shape,
        hidden_size=3072,
        num_hidden_layers=32,
        num_attention_heads=24,
        intermediate_size=7168,
    )
    return [size_model(config, context_tokens=8) for config in (six, three)]


def test_the_references_size_targets_are_reached_as_its_bits_allow(billions):
    six, three = billions
    fit = fit_budget(six.formats, parameters=six.parameters, budget_bytes=1_800_000_000)
    assert fit.bits_per_parameter == pytest.approx(2.4, rel=0.01)
    assert (fit.number_format, fit.kept_ratio) == ("int2", 1.0)
    fit = fit_budget(three.formats, parameters=three.parameters, budget_bytes=500_000_000)
    assert fit.bits_per_parameter == pytest.approx(4 / 3, rel=0.01)
    assert fit.number_format == "ternary"
    # Scales and embeddings take what plain arithmetic with two bits (0.66) forgets.
    assert 0.55 < fit.kept_ratio < 0.6
    ternary = three.formats[-1]
    body = ternary.total_bytes - ternary.embedding_bytes
    assert ternary.embedding_bytes + fit.kept_ratio * body == pytest.approx(500_000_000)
    assert fit.total_bytes <= 500_000_000


def test_no_format_helps_where_the_embeddings_alone_are_too_large(billions):
    table = billions[1].formats[-1].embedding_bytes
    fit = fit_budget(billions[1].formats, parameters=1, budget_bytes=table - 1)
    assert (fit.kept_ratio, fit.total_bytes) == (0.0, table)
    roomy = fit_budget(billions[1].formats, parameters=1, budget_bytes=10**12)
    assert (roomy.number_format, roomy.kept_ratio) == ("float32", 1.0)


def test_a_mixture_of_twelve_billion_per_expert_is_sized_in_seconds():
    config = Qwen3MoeConfig(
        vocab_size=151936,
        hidden_size=8192,
        num_hidden_layers=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=2,
        moe_intermediate_size=7632,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = size_model(config, context_tokens=4096)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000
    assert size.expert_parameters / 128 == pytest.approx(12e9, rel=0.01)
    assert size.skipped_ratio > 0.95
    assert size.active_parameters < 0.03 * size.parameters


PUBLISHED = {
    # Qwen3 technical report, table 2 (arXiv:2505.09388).
    "qwen3-30b-a3b": (
        Qwen3MoeConfig(
            vocab_size=151936,
            hidden_size=2048,
            intermediate_size=6144,
            num_hidden_layers=48,
            num_attention_heads=32,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
            tie_word_embeddings=False,
        ),
        30.5e9,
        3.3e9,
    ),
    # Mixtral of experts, sec. 2 (arXiv:2401.04088).
    "mixtral-8x7b": (
        MixtralConfig(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            num_local_experts=8,
            num_experts_per_tok=2,
        ),
        46.7e9,
        12.9e9,
    ),
    # DeepSeek-V3 technical report, sec. 4.2 (arXiv:2412.19437), without multi-token prediction.
    "deepseek-v3": (
        DeepseekV3Config(
            vocab_size=129280,
            hidden_size=7168,
            intermediate_size=18432,
            moe_intermediate_size=2048,
            num_hidden_layers=61,
            num_attention_heads=128,
            num_key_value_heads=128,
            n_shared_experts=1,
            n_routed_experts=256,
            num_experts_per_tok=8,
            kv_lora_rank=512,
            q_lora_rank=1536,
            qk_rope_head_dim=64,
            v_head_dim=128,
            qk_nope_head_dim=128,
            n_group=8,
            topk_group=4,
            first_k_dense_replace=3,
            tie_word_embeddings=False,
        ),
        671e9,
        37e9,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_mixtures_have_their_published_parameters(name):
    config, parameters, active = PUBLISHED[name]
    size = size_model(config, context_tokens=1)
    assert size.parameters == pytest.approx(parameters, rel=0.01)
    # Reports count active parameters with or without embeddings, rounded.
    assert size.active_parameters == pytest.approx(active, rel=0.03)


def test_other_architectures_are_sized_too():
    gpt2 = size_model(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2), context_tokens=8)
    # Twelve times the squared width a layer, the head, and attention.
    assert gpt2.forward_flops == 2 * (2 * 12 * 16 * 16 + 64 * 16) + 2 * 4 * 8 * 16
    mamba = size_model(
        MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2), context_tokens=8
    )
    assert mamba.kv_cache_bytes == 0
    assert mamba.parameters > 0


def test_a_config_of_no_causal_model_is_refused():
    with pytest.raises(CheckpointError, match="'t5'"):
        size_model(T5Config(), context_tokens=8)


def test_speed_gives_a_time(dense_config, tokenizer):
    speed = measure_speed(seconds=0.05)
    assert speed.flops_per_second > 1e8
    size = size_model(dense_config.describe(Vocabulary.of(tokenizer)), context_tokens=8)
    seconds = estimate_training_seconds(size, num_tokens=1000, speed=speed)
    assert math.isfinite(seconds)
    assert seconds == pytest.approx(
        estimate_training_seconds(size, num_tokens=2000, speed=speed) / 2
    )


@pytest.mark.parametrize("fusion", ["attention", "full_attention"])
def test_a_fusion_multiplies_as_often_as_torch_counts(fusion):
    shape = {
        "hidden_size": 32,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 8,
        "num_experts": 8,
        "num_hidden_layers": 2,
        "fusion_heads": 4,
        "fusion_rank": 2,
    }
    plain, fused = (
        size_model(LimbeckMoeConfig(fusion=kind, **shape), context_tokens=4)
        for kind in ("weighted_sum", fusion)
    )
    module = build_fusion(fusion, hidden=32, num_heads=4, rank=2)
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(5, 32), outputs=torch.randn(5, 3, 32), weights=torch.rand(5, 3))
    # The counter sees the scores' own products too, which are not of any weight.
    scores = 2 * 5 * 3 * (4 * 2 if fusion == "attention" else 32)
    counted = (counter.get_total_flops() - scores) / 5
    assert fused.forward_flops - plain.forward_flops == 2 * counted


def test_the_first_field_that_holds_a_number_counts():
    config = PreTrainedConfig(few=None, none=0, many=[3], picked=2, other=5)
    assert find_number(config, "few", "none", "many", "absent", "picked", "other") == 2
    assert find_number(config, "few", "absent") == 0
