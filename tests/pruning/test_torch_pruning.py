"""Torch-Pruning, which traces what depends on what, cuts the same rows and columns of a Llama."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.surgery import cut

tp = pytest.importorskip("torch_pruning")
CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    head_dim=4,
    initializer_range=0.3,
    tie_word_embeddings=False,
    use_cache=False,
)
START = {"channels": "mlp.gate_proj", "heads": "self_attn.v_proj"}
"""From where the tracing starts; each head has keys and values of its own, which it can follow."""


def trace(model, *, groups, gone, ids):
    """What Torch-Pruning would take along: (parameter, axis) by what it cuts."""
    norms = [(item, 0) for name, item in model.named_parameters() if "norm" in name]
    graph = tp.DependencyGraph().build_dependency(
        model,
        example_inputs={"input_ids": ids},
        output_transform=lambda output: output.logits,
        unwrapped_parameters=norms,
    )
    start = model.model.layers[groups.layer].get_submodule(START[groups.kind])
    width = groups.parts[-1].width
    rows = [index * width + offset for index in gone for offset in range(width)]
    return graph.get_pruning_group(start, tp.prune_linear_out_channels, idxs=rows)


@pytest.mark.parametrize("kind", START)
def test_the_same_is_cut_and_the_logits_are_equal(kind):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    ids = torch.randint(0, 40, (2, 9))
    other = copy.deepcopy(model)
    layers = {"channels": find_channels, "heads": find_heads}[kind](model)
    gone = {groups: (0, 3) if groups.layer else (1, 2) for groups in layers}
    for groups, indices in gone.items():
        traced = trace(other, groups=groups, gone=indices, ids=ids)
        names = {item: f"{name}.weight" for name, item in other.named_modules()}
        axes = {"prune_out_channels": 0, "prune_in_channels": 1}
        found = {
            (names[dependency.target.module], axes[dependency.handler.__name__])
            for dependency, _ in traced
            if isinstance(dependency.target.module, torch.nn.Linear)
        }
        assert found == {(part.parameter, part.axis) for part in groups.parts}
        traced.prune()
    for layer in other.model.layers:
        assert layer.self_attn.q_proj.out_features == (8 if kind == "heads" else 16)
    kept = {
        groups: tuple(index for index in range(groups.num_groups) if index not in indices)
        for groups, indices in gone.items()
    }
    smaller = cut(model, kept=kept)
    for name, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    torch.testing.assert_close(smaller(input_ids=ids).logits, other(input_ids=ids).logits)
