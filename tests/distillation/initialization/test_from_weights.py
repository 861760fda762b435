"""A student that starts from its teacher: what fits is copied, from evenly spread layers."""

import pytest
import torch
import transformers

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.initialization.from_weights import (
    Inherited,
    check_fit,
    copy_matching_weights,
)


def test_attention_embeddings_and_norms_are_taken_and_the_rest_stays_fresh(moe, dense):
    fresh = {name: item.clone() for name, item in dense.named_parameters()}
    share = copy_matching_weights(dense, teacher=moe).ratio
    sources = dict(moe.named_parameters())
    copied = 0
    for name, item in dense.named_parameters():
        if ".mlp." in name:
            assert torch.equal(item, fresh[name])
        else:
            assert torch.equal(item, sources[name])
            copied += item.numel()
    assert share == pytest.approx(copied / sum(item.numel() for item in dense.parameters()))
    assert dense.get_input_embeddings().weight is dense.get_output_embeddings().weight


def test_the_same_architecture_becomes_its_teacher(dense_config, tokenizer):
    teacher = dense_config.build(tokenizer=tokenizer, seed=1).eval()
    student = dense_config.build(tokenizer=tokenizer, seed=2).eval()
    assert copy_matching_weights(student, teacher=teacher) == Inherited(1.0)
    ids = torch.arange(6).unsqueeze(0)
    assert torch.equal(student(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize(("num_layers", "taken"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5])])
def test_layers_are_spread_over_the_teachers_depth(num_layers, taken, dense_config, tokenizer):
    teacher = dense_config.replace(num_hidden_layers=6).build(tokenizer=tokenizer, seed=1)
    student = dense_config.replace(num_hidden_layers=num_layers).build(tokenizer=tokenizer, seed=2)
    copy_matching_weights(student, teacher=teacher)
    for own, source in enumerate(taken):
        weights = [
            model.model.layers[index].self_attn.q_proj.weight
            for model, index in ((student, own), (teacher, source))
        ]
        assert torch.equal(*weights)


def test_a_student_that_nothing_fits_is_refused(moe, dense_config, tokenizer):
    other = dense_config.replace(hidden_size=24, head_dim=6).build(tokenizer=tokenizer, seed=0)
    with pytest.raises(CheckpointError, match="hidden 24"):
        copy_matching_weights(other, teacher=moe)


def test_norms_alone_are_nothing_that_fits():
    """Whether a norm can be taken is decided by what it computes, which no shape says."""
    student = build("Qwen3")
    teacher = build("GPTNeoX", vocab_size=61, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match="nothing of GPTNeoXForCausalLM"):
        check_fit(student, teacher=teacher)


def build(name, **changes):
    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**shape | changes)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def kl(teacher, student):
    ids = torch.randint(0, 60, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p, q = (model(input_ids=ids).logits.log_softmax(-1) for model in (teacher, student))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 1e6},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    ],
)
def test_the_rotary_embedding_is_taken_over(rope):
    teacher = build("Qwen3", rope_parameters=rope)
    student = build("Qwen3", initializer_range=0.02)
    assert copy_matching_weights(student, teacher=teacher) == Inherited(1.0)
    assert kl(teacher, student) < 1e-6
    assert student.config.rope_parameters["rope_theta"] == rope["rope_theta"]


def test_a_rotary_embedding_that_the_recipe_asks_for_is_kept_and_reported():
    teacher = build("Qwen3", rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    student = build("Qwen3")
    found = copy_matching_weights(student, teacher=teacher, keep_rotary=True)
    assert any("rope_theta differs" in text for text in found.differences)
    assert any("give other outputs" in text for text in found.differences)
    assert student.config.rope_parameters["rope_theta"] == 1e4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "longrope", "short_factor": [1.5] * 8, "long_factor": [2.0] * 8},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
    ],
)
def test_a_rotary_embedding_for_wider_heads_is_reported(rope):
    """Half of each wider head turns: as many values as the student's whole head has."""
    wide = {"num_attention_heads": 1, "head_dim": 32}
    rope = {"rope_theta": 1e4, "partial_rotary_factor": 0.5, **rope}
    teacher = build(
        "Phi3" if rope["rope_type"] == "longrope" else "Glm4", rope_parameters=rope, **wide
    )
    student = build("Qwen3")
    found = copy_matching_weights(student, teacher=teacher)
    assert any("does not fit heads" in text for text in found.differences)
    assert student.config.rope_parameters["rope_type"] == "default"
    assert kl(teacher, student) > 0


def test_a_base_survives_saving(tmp_path):
    teacher = build("Qwen3", rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    student = build("Qwen3")
    copy_matching_weights(student, teacher=teacher)
    student.save_pretrained(tmp_path)
    assert kl(teacher, type(student).from_pretrained(tmp_path).eval()) < 1e-6


@pytest.mark.parametrize("names", [("Phi3", "Llama"), ("Llama", "Phi3")])
@pytest.mark.parametrize("num_keys", [1, 2])
def test_projections_are_taken_from_a_teacher_that_fuses_otherwise(names, num_keys):
    """A Phi-3 and the Llama of the same weights answer alike, so nothing is left to report."""
    teacher, student = (
        build(name, num_key_value_heads=num_keys, initializer_range=spread, rms_norm_eps=1e-5)
        for name, spread in zip(names, (0.2, 0.02), strict=True)
    )
    assert kl(teacher, student) > 0.01
    assert copy_matching_weights(student, teacher=teacher) == Inherited(1.0)
    assert kl(teacher, student) < 1e-6


def test_fused_projections_with_other_heads_stay_fresh():
    student = build("Llama")
    fresh = student.model.layers[0].self_attn.k_proj.weight.clone()
    assert fresh.shape == (16, 32)
    copy_matching_weights(student, teacher=build("Phi3", num_key_value_heads=2))
    assert torch.equal(student.model.layers[0].self_attn.k_proj.weight, fresh)


def test_norms_that_add_one_and_scaled_embeddings_are_converted():
    """Gemma multiplies by 1 + weight and its embeddings by the root of the width."""
    teacher = build("Gemma", hidden_act="silu", hidden_activation="silu")
    student = build("Llama", initializer_range=0.02, hidden_act="silu")
    with torch.no_grad():
        for module in teacher.modules():
            if type(module).__name__ == "GemmaRMSNorm":
                module.weight.normal_(0, 0.1)
    assert copy_matching_weights(student, teacher=teacher) == Inherited(1.0)
    assert kl(teacher, student) < 1e-5


def test_the_inner_norm_is_taken_from_between_sandwiched_ones():
    teacher, student = build("Gemma2"), build("Llama")
    with torch.no_grad():
        for layer in teacher.model.layers:
            layer.pre_feedforward_layernorm.weight.fill_(0.5)
            layer.post_attention_layernorm.weight.fill_(0.1)
    copy_matching_weights(student, teacher=teacher)
    for layer in student.model.layers:
        assert torch.allclose(layer.post_attention_layernorm.weight, torch.tensor(1.5))


def test_a_norm_that_computes_otherwise_stays_fresh_and_is_reported():
    student = build("Llama")
    student.model.norm = torch.nn.LayerNorm(32)
    teacher = build("Llama")
    with torch.no_grad():
        teacher.model.norm.weight.normal_(1, 0.5)
    found = copy_matching_weights(student, teacher=teacher)
    assert any("norms of another kind stay fresh: model.norm" in t for t in found.differences)
    assert torch.equal(student.model.norm.weight, torch.ones(32))


def test_attention_with_norms_of_its_own_is_reported_to_differ():
    found = copy_matching_weights(build("Qwen3"), teacher=build("Llama"))
    assert not any("mlp" in text for text in found.differences)
    assert any(
        "self_attn" in text and "Qwen3ForCausalLM computes" in text for text in found.differences
    )


def test_another_activation_is_reported_to_differ():
    found = copy_matching_weights(build("Llama"), teacher=build("Llama", hidden_act="gelu"))
    assert any("of mlp" in text and "self_attn" not in text for text in found.differences)


@pytest.mark.parametrize("tied", [True, False])
def test_scales_of_blocks_and_logits_are_taken_over(tied):
    """Granite multiplies embeddings, what a block adds, and logits."""
    scales = {
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.3,
        "logits_scaling": 8.0,
        "attention_multiplier": 16**-0.5,
    }
    teacher = build("Granite", tie_word_embeddings=tied, **scales)
    student = build("Llama", initializer_range=0.02, tie_word_embeddings=tied)
    assert copy_matching_weights(student, teacher=teacher) == Inherited(1.0)
    assert kl(teacher, student) < 1e-6


def test_a_cap_of_logits_and_a_window_are_reported():
    rope = {"rope_type": "default", "rope_theta": 1e4}
    capped = build("Gemma2", final_logit_softcapping=0.5, initializer_range=0.5)
    found = copy_matching_weights(build("Llama"), teacher=capped)
    assert any("other logits of the same last state" in text for text in found.differences)
    windowed = build("Mistral", sliding_window=8, rope_parameters=rope)
    found = copy_matching_weights(build("Llama"), teacher=windowed)
    assert found.differences == (
        "layers of the teacher see the latest 8 tokens, those of the student all",
    )
