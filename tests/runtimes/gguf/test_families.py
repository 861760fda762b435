"""llama.cpp computes what each family's checkpoints compute, or the setting is refused by name."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, open_config, save_checkpoint
from limbeck.models.gguf.header import read_header
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.runtimes.architecture import describe_architecture
from limbeck.runtimes.gguf.families import FAMILIES
from limbeck.runtimes.gguf.limits import check_model
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from tests.support.families import FAMILIES as TINY
from tests.support.families import PARTIAL_ROTARY, make_family
from tests.support.gguf_bundles import measure
from tests.support.tiny_checkpoints import make_checkpoint

FLOAT32, HALF = 1e-5, 1e-3
"""Largest difference of logits over the largest logit; where GELU is looked up in a table of half
precision, its steps of 2**-11 show."""
WINDOW, FULL = "sliding_attention", "full_attention"
PLAIN = {"rope_type": "default", "rope_theta": 1e6}
NARROW = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
FIVE_LAYERS = {"num_hidden_layers": 5, "layer_types": [WINDOW, WINDOW, FULL, WINDOW, WINDOW]}
SAME = (
    ("Llama 3", {}),
    ("Llama with biases", {}),
    ("Qwen2", {}),
    ("Qwen3", {}),
    ("Qwen3", {"rope_parameters": LINEAR}),
    ("Gemma 3", {}),
    ("Gemma 3", {**FIVE_LAYERS, "rope_parameters": {FULL: LINEAR, WINDOW: NARROW}}),
    ("Gemma 3", {"layer_types": [FULL, FULL]}),
    ("Gemma 3", {"layer_types": [WINDOW, WINDOW], "sliding_window": 8}),
    ("Gemma 3", {"final_logit_softcapping": 3.0, "tie_word_embeddings": False}),
    ("Gemma 3", {"layer_types": [FULL, FULL], "final_logit_softcapping": 3.0}),
    ("Gemma 2", {}),
    ("Gemma 2", {"layer_types": [FULL, FULL]}),
    ("Qwen2-MoE", {}),
    ("Qwen3-MoE", {"norm_topk_prob": True}),
    ("Mixtral", {}),
    ("OLMoE", {"num_key_value_heads": 4}),
    ("OLMo 2", {}),
    ("Phi-3", {}),
    ("Phi-4 mini", {"rope_parameters": PARTIAL_ROTARY}),
    ("GLM-4", {}),
    ("SmolLM3", {**FIVE_LAYERS, "layer_types": None, "no_rope_layers": [1, 1, 1, 0, 1]}),
    ("Granite", {"attention_bias": True, "mlp_bias": True}),
)
"""Families, and what of their configs is changed."""
REFUSED = (
    (
        "Qwen2",
        {"layer_types": [WINDOW] * 2, "sliding_window": 16, "use_sliding_window": True},
        "layers with a window",
    ),
    ("Qwen3", {"attention_bias": True}, "biases in attention's last projection"),
    ("Qwen3", {"hidden_act": "gelu_pytorch_tanh"}, "activation 'gelu_pytorch_tanh', llama.cpp 's"),
    (
        "Qwen3",
        {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}, "head_dim": 32},
        "rotates 16 of 32",
    ),
    ("Gemma 3", {"layer_types": [FULL, WINDOW]}, r"without a window at \[0\]"),
    ("Gemma 3", {"query_pre_attn_scalar": 32}, "scales attention by 0.17.*, llama.cpp by 0.25"),
    ("Gemma 3", {"attention_bias": True}, "does not read for 'gemma3_text'"),
    ("Gemma 3", {"rope_parameters": {FULL: PLAIN, WINDOW: LINEAR}}, "positions of layers with a w"),
    ("Gemma 2", {"attn_logit_softcapping": 0.0}, "has no attention_softcap, which llama.cpp alw"),
    ("Qwen3-MoE", {}, "weighs experts with no norm, llama.cpp with a norm"),
    ("Qwen3-MoE", {"norm_topk_prob": True, "mlp_only_layers": [0]}, "dense layers among"),
    ("OLMoE", {}, "fewer heads of keys than of queries"),
    ("OLMoE", {"num_key_value_heads": 4, "norm_topk_prob": True}, "with a norm, llama.cpp with no"),
    ("OLMo 2", {"tie_word_embeddings": True}, "a head that is its embeddings"),
    ("OLMo 2", {"num_attention_heads": 2, "head_dim": 16}, "heads of 32 together and a width of"),
    ("Phi-3", {"sliding_window": 16}, "layers with a window"),
    ("SmolLM3", {}, "layer 1 has no positions"),
    ("GLM-4", {"attention_bias": True, "hidden_act": "gelu_pytorch_tanh"}, "has activation"),
)


@pytest.mark.parametrize(("name", "changes"), SAME)
def test_predicts_and_decodes_as_transformers(name, changes, tmp_path):
    folder = make_family(tmp_path / "model", name=name, **changes)
    bundle = GgufRuntime().write(folder, tmp_path / "bundle")
    found = measure(folder, tmp_path / "bundle")
    limit = HALF if bundle.architecture in GgufRuntime.rounded_architectures else FLOAT32
    assert found.max_logit_difference < limit * max(found.max_logit, 1)
    assert found.argmax_agreement_ratio == 1.0


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused(name, changes, message, tmp_path):
    config = open_config(make_family(tmp_path / "model", name=name, **changes))
    found = describe_architecture(
        config, number_format="float32", runtime=GgufRuntime(), place="model"
    )
    with pytest.raises(CheckpointError, match=message):
        check_model(found, number_format="float32", weights="F32", place="model")


def test_without_its_feed_forward_gemma_is_computed_in_float32(tmp_path):
    """What is left of the difference above is the table of GELU alone."""
    folder = make_family(tmp_path / "model", name="Gemma 3", **FIVE_LAYERS)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if name.endswith("up_proj.weight"):
            parameter.data.zero_()
    model.save_pretrained(folder)
    GgufRuntime().write(folder, tmp_path / "bundle")
    found = measure(folder, tmp_path / "bundle")
    assert found.max_logit_difference < FLOAT32 * max(found.max_logit, 1)


@pytest.mark.parametrize(("number_format", "limit"), [("int8", 0.01), ("int4", 0.02)])
def test_gemmas_integers_are_carried(number_format, limit, tmp_path):
    make_checkpoint(tmp_path / "model", "gemma3", number_format)
    bundle = GgufRuntime().write(tmp_path / "model", tmp_path / "bundle")
    types = {item.type for item in read_header(tmp_path / "bundle" / MODEL).tensors}
    assert types == {"F32", "Q8_0", *(["Q4_0"] if number_format == "int4" else [])}
    assert bundle.format == number_format
    assert measure(tmp_path / "model", tmp_path / "bundle").mean_kl < limit


@pytest.mark.parametrize(("name", "limit"), [("Phi-3", 0.05), ("GLM-4", 0.05)])
def test_two_halves_of_one_matrix_are_filled_up_each(name, limit, tmp_path):
    folder = make_family(tmp_path / "model", name=name, intermediate_size=48)
    bundle = GgufRuntime().write(folder, tmp_path / "bundle", weights="Q8_0")
    assert bundle.runtime_settings["num_padded_channels"] == 16
    assert measure(folder, tmp_path / "bundle").mean_kl < limit


def test_experts_are_rounded_with_a_float_model_alone(tmp_path):
    changes = {"norm_topk_prob": True, "moe_intermediate_size": 32}
    folder = make_family(tmp_path / "model", name="Qwen3-MoE", **changes)
    bundle = GgufRuntime().write(folder, tmp_path / "rounded", weights="Q8_0")
    types = {item.name: item.type for item in read_header(tmp_path / "rounded" / MODEL).tensors}
    assert types["blk.0.ffn_down_exps.weight"] == "Q8_0"
    assert types["blk.0.ffn_gate_inp.weight"] == "F32"
    assert 0 < bundle.active_parameters < bundle.parameters
    assert measure(folder, tmp_path / "rounded").mean_kl < 0.05
    stored = tmp_path / "stored"
    integers = convert(load_model(folder), number_format=Int8(kind="int8"))
    save_checkpoint(integers, tokenizer=load_tokenizer(folder), folder=stored)
    GgufRuntime().write(stored, tmp_path / "carried")
    types = {item.name: item.type for item in read_header(tmp_path / "carried" / MODEL).tensors}
    assert types["blk.0.ffn_down_exps.weight"] == "F32" and types["blk.0.attn_q.weight"] == "Q8_0"
    assert measure(stored, tmp_path / "carried").mean_kl < 0.05


def test_widths_that_are_no_whole_blocks_are_refused(tmp_path):
    config = open_config(make_family(tmp_path / "model", name="Qwen3"))
    config.hidden_size = 48
    found = describe_architecture(
        config, number_format="float32", runtime=GgufRuntime(), place="model"
    )
    with pytest.raises(CheckpointError, match="hidden_size is 48, and Q8_0 has blocks of 32"):
        check_model(found, number_format="float32", weights="Q8_0", place="model")


def test_other_families_are_refused_by_name(tmp_path):
    folder = make_family(tmp_path / "model", name="gpt-oss")
    with pytest.raises(CheckpointError, match="'gpt_oss' cannot be exported to gguf"):
        GgufRuntime().write(folder, tmp_path / "bundle")


def test_mistral_is_a_llama_without_windows(tmp_path):
    make_checkpoint(tmp_path / "model", "mistral")
    GgufRuntime().write(tmp_path / "model", tmp_path / "bundle")
    found = measure(tmp_path / "model", tmp_path / "bundle")
    assert found.max_logit_difference < FLOAT32 * max(found.max_logit, 1)
    folder = make_family(tmp_path / "windows", name="Mistral")
    with pytest.raises(CheckpointError, match="has layers with a window"):
        GgufRuntime().write(folder, tmp_path / "none")


def test_a_window_as_long_as_the_longest_text_hides_nothing(tmp_path):
    folder = make_family(tmp_path / "model", name="Mistral", sliding_window=256)
    GgufRuntime().write(folder, tmp_path / "bundle")
    found = measure(folder, tmp_path / "bundle")
    assert found.max_logit_difference < FLOAT32 * max(found.max_logit, 1)


def test_every_family_is_tried():
    tried = {TINY[name][0] for name, _ in SAME}
    assert set(FAMILIES) == tried | {"mistral"}
