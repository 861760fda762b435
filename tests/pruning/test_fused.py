"""A Phi-3, whose projections are fused, is pruned as the Llama of the same weights."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import CRITERIA
from limbeck.models.batch import Batch
from limbeck.models.projections import FUSED
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.allocation import pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import score_groups
from limbeck.pruning.group_lasso import shrink
from limbeck.pruning.surgery import cut, mask
from limbeck.pruning.width import find_stream, score_channels

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "initializer_range": 0.3,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
FINDERS = {"channels": find_channels, "heads": find_heads}
ROWS = {"q_proj": 24, "k_proj": 12, "v_proj": 12, "gate_proj": 24, "up_proj": 24}


def divide(tensors, *, rows):
    """The tensors of a model with fused projections under the names of one without."""
    divided = {}
    for name, tensor in tensors.items():
        block, dot, layer = name.removesuffix(".weight").rpartition(".")
        held = FUSED.get(layer, (layer,))
        sizes = [rows[item] for item in held] if layer in FUSED else [len(tensor)]
        for item, part in zip(held, tensor.split(sizes), strict=True):
            divided[f"{block}{dot}{item}.weight"] = part
    return divided


def same(fused, plain, *, rows=ROWS):
    divided = divide(fused.state_dict(), rows=rows)
    return divided.keys() == plain.state_dict().keys() and all(
        torch.equal(tensor, divided[name]) for name, tensor in plain.state_dict().items()
    )


@pytest.fixture
def pair():
    torch.manual_seed(0)
    fused = Phi3ForCausalLM(Phi3Config(**SIZES)).double().eval()
    plain = LlamaForCausalLM(LlamaConfig(**SIZES)).double().eval()
    plain.load_state_dict(divide(fused.state_dict(), rows=ROWS))
    return fused, plain


@pytest.fixture
def batch():
    ids = torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(1))
    tokens = torch.ones_like(ids, dtype=torch.bool)
    tokens[0, 5:] = False
    return Batch(input_ids=ids, labels=ids.clone(), record_ids=torch.arange(3), tokens=tokens)


@pytest.mark.parametrize("kind", FINDERS)
@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "reap"])
def test_every_criterion_scores_the_same(kind, name, pair, batch):
    criterion = resolve(CRITERIA, name, what="criterion")()
    found = []
    for model in pair:
        layers = FINDERS[kind](model)
        measured = calibrate(model, layers=layers, batches=[batch], needs=criterion.needs)
        scores = [
            score_groups(model, groups=groups, criterion=criterion, calibration=measured[groups])
            for groups in layers
        ]
        found.append(torch.stack(scores))
    torch.testing.assert_close(*found)


def test_gradients_are_divided_alike(pair, batch):
    found = [
        calibrate(model, layers=find_heads(model), batches=[batch], needs="gradients")
        for model in pair
    ]
    for fused, plain in zip(*(item.values() for item in found), strict=True):
        torch.testing.assert_close(list(fused.gradients), list(plain.gradients))


def test_the_residual_stream_is_scored_alike(pair, batch):
    scores = [score_channels(item, stream=find_stream(item), batches=[batch]) for item in pair]
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("kind", FINDERS)
@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_the_group_lasso_shrinks_alike(kind, fraction, pair):
    for model in pair:
        for groups in FINDERS[kind](model):
            shrink(model, groups=groups, num_zero=2, fraction=fraction, concavity=8.0)
    assert same(*pair)


def test_the_same_is_masked_and_cut(pair):
    scores = torch.Generator().manual_seed(2)
    kept = [{}, {}]
    for find, num_kept in ((find_channels, 10), (find_heads, 2)):
        for layers in zip(*(find(model) for model in pair), strict=True):
            drawn = torch.rand(layers[0].num_groups, generator=scores)
            for chosen, groups in zip(kept, layers, strict=True):
                chosen[groups] = pick_kept(drawn, num_kept=num_kept)
    smaller = [cut(model, kept=chosen) for model, chosen in zip(pair, kept, strict=True)]
    rows = {"q_proj": 16, "k_proj": 8, "v_proj": 8, "gate_proj": 10, "up_proj": 10}
    assert same(*smaller, rows=rows)
    masked = [copy.deepcopy(model) for model in pair]
    removed = [mask(model, kept=chosen) for model, chosen in zip(masked, kept, strict=True)]
    assert same(*masked)
    assert removed[0] == pytest.approx(removed[1])
    ids = torch.randint(0, 40, (3, 9))
    torch.testing.assert_close(smaller[0](input_ids=ids).logits, masked[0](input_ids=ids).logits)
