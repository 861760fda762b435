"""A student that starts from its teacher: what fits is copied, from evenly spread layers."""

import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.initialization.from_weights import copy_matching_weights


def test_attention_embeddings_and_norms_are_taken_and_the_rest_stays_fresh(moe, dense):
    fresh = {name: item.clone() for name, item in dense.named_parameters()}
    share = copy_matching_weights(dense, teacher=moe)
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
    assert copy_matching_weights(student, teacher=teacher) == 1.0
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
