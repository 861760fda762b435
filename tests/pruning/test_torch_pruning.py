"""Torch-Pruning, which traces what depends on what, cuts the same rows and columns."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.surgery import cut

tp = pytest.importorskip("torch_pruning")
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 4,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "use_cache": False,
    "pad_token_id": 0,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "fused": lambda: Phi3ForCausalLM(Phi3Config(**SIZES)),
}
START = {"channels": "mlp.down_proj", "heads": "self_attn.o_proj"}
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
    return graph.get_pruning_group(start, tp.prune_linear_in_channels, idxs=rows)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", START)
def test_the_same_is_cut_and_the_logits_are_equal(kind, name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ids = torch.randint(0, 40, (2, 9))
    other = copy.deepcopy(model)
    layers = {"channels": find_channels, "heads": find_heads}[kind](model)
    gone = {groups: (0, 3) if groups.layer else (1, 2) for groups in layers}
    # All are traced before any is cut: a fused layer is divided by the config's number of heads.
    traces = {
        groups: trace(other, groups=groups, gone=indices, ids=ids)
        for groups, indices in gone.items()
    }
    for groups, traced in traces.items():
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
        assert layer.self_attn.o_proj.in_features == (8 if kind == "heads" else 16)
    kept = {
        groups: tuple(index for index in range(groups.num_groups) if index not in indices)
        for groups, indices in gone.items()
    }
    smaller = cut(model, kept=kept)
    for name, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    # Torch-Pruning leaves the numbers of heads as they were; by these Phi-3 divides its rows.
    other.config.num_attention_heads = smaller.config.num_attention_heads
    for layer in other.model.layers:
        layer.self_attn.num_key_value_heads = smaller.config.num_key_value_heads
    torch.testing.assert_close(smaller(input_ids=ids).logits, other(input_ids=ids).logits)
