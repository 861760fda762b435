"""Evening channels out changes nothing that a model of floats computes, in any family."""

import pytest
import torch

from limbeck.contracts.parity import compare_logits
from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import compute_logits
from limbeck.models.smoothing.pairs import LayerPair
from limbeck.models.smoothing.smooth import find_factors, smooth
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from tests.support.families import FAMILIES, make_family
from tests.support.token_batch import token_batch

IDS = torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(0))
BATCH = token_batch(IDS)
NUM_PAIRS = {
    **dict.fromkeys(("Qwen2-MoE", "Qwen3-MoE", "Mixtral"), 4),  # attention alone
    **dict.fromkeys(("OLMo 2", "DeepSeek-V3"), 2),  # feed-forward channels; one dense layer
    **dict.fromkeys(("Qwen3-Next", "OLMoE", "gpt-oss", "GPT-2"), 0),
}
"""Where it is not every block of both layers: norm to attention, values to output, and so on."""


def run(model, strength=0.5):
    return smooth(model, batches=[BATCH], strength=strength, input_ids=IDS)


@pytest.fixture
def llama(tmp_path):
    """A Llama one of whose channels is thirty times as large as the others."""
    model = load_model(make_family(tmp_path / "model", name="Llama with biases"))
    for layer in model.model.layers:
        layer.input_layernorm.weight.data[5] = 30
        layer.mlp.up_proj.weight.data[3] *= 30
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_answers_as_before(name, tmp_path):
    model = load_model(make_family(tmp_path / "model", name=name))
    before = compute_logits(model, input_ids=IDS)
    assert run(model) == NUM_PAIRS.get(name, 8)
    after = compute_logits(model, input_ids=IDS)
    assert abs(after - before).max() < 1e-5 * abs(before).max()


def test_integers_lose_less(llama, tmp_path):
    before = compute_logits(llama, input_ids=IDS)
    state = {name: item.clone() for name, item in llama.state_dict().items()}

    def lost(strength):
        model = load_model(make_family(tmp_path / f"{strength}", name="Llama with biases"))
        model.load_state_dict(state)
        if strength is not None:
            assert run(model, strength) == 8
        codes = convert(model, number_format=Int8(kind="int8"))
        return compare_logits([(before, compute_logits(codes, input_ids=IDS))]).mean_kl

    assert lost(0.5) < 0.7 * lost(None)


def test_a_model_stays_as_it_is_where_something_else_reads_its_channels(llama, caplog):
    attention = llama.model.layers[0].self_attn
    forward = attention.forward

    def read_twice(hidden_states, **settings):
        mixed, weights = forward(hidden_states=hidden_states, **settings)
        return mixed + hidden_states, weights

    attention.forward = read_twice
    state = {name: item.clone() for name, item in llama.state_dict().items()}
    assert run(llama) == 0
    assert "other parts of it read them as well" in caplog.text
    for name, item in llama.state_dict().items():
        assert torch.equal(item, state[name])


def test_a_factor_is_the_channels_share_of_the_unevenness():
    """Of two value heads that two queries each read, the query that reads most counts."""
    weights = torch.tensor([[1.0, 2.0, 4.0, 2.0, 3.0, 3.0, 3.0, 3.0]])
    found = find_factors(
        torch.tensor([1.0, 4.0, 16.0, 4.0, 9.0, 9.0, 9.0, 9.0]),
        weights=[weights, weights / 2],
        pair=LayerPair(("o_proj",), num_runs=2, repeats=2),
        strength=0.5,
    )
    assert torch.equal(found, torch.ones(2, 2))
    strong = find_factors(
        torch.tensor([4.0, 16.0]), weights=[torch.ones(1, 2)], pair=LayerPair(("x",)), strength=1.0
    )
    assert strong.tolist() == [[2.0, 4.0]]


def test_a_channel_that_is_never_made_counts_as_one_that_hardly_is():
    pair = LayerPair(("down_proj",))
    found = find_factors(
        torch.tensor([0.0, 4.0]), weights=[torch.ones(1, 2)], pair=pair, strength=1.0
    )
    assert found.tolist() == [[pytest.approx(0.01), 2.0]]
    nothing = find_factors(torch.zeros(2), weights=[torch.ones(1, 2)], pair=pair, strength=0.5)
    assert nothing.tolist() == [[1.0, 1.0]]
