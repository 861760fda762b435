"""Memory is that of the paper's example, and that of training steps that are really run."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.losses.config import ForwardKl
from limbeck.distillation.targets import FullLogits
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.kernels import experts_op
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.sizing.memory import (
    LAYOUTS,
    LOGIT_COPIES,
    Workload,
    activation_bytes,
    serving_memory,
    state_bytes,
    training_memory,
)
from limbeck.sizing.parameters import size_model

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
DENSE = Qwen3Config(**SHAPE, intermediate_size=160, tie_word_embeddings=True)
SPARSE = {
    fusion: LimbeckMoeConfig(
        **SHAPE,
        num_experts=8,
        moe_intermediate_size=48,
        fusion=fusion,
        fusion_heads=4,
        fusion_rank=8,
    )
    for fusion in ("weighted_sum", "attention", "full_attention")
}
CONFIGS = {"dense": DENSE, **SPARSE}


@pytest.mark.parametrize(
    ("layout", "gigabytes"), [("zero0", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.9)]
)
def test_the_papers_example_of_7_5_billion_on_64_cards(layout, gigabytes):
    # Rajbhandari et al. 2019, figure 1 (arXiv:1910.02054): 16 bytes a parameter, mixed precision.
    state = state_bytes(7_500_000_000, layout=layout, num_cards=64, precision="bfloat16")
    assert state.total / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_cards", [1, 2, 64, 4096])
def test_each_stage_holds_at_most_as_much_as_the_one_before(num_cards, precision):
    zero = [
        state_bytes(10**9, layout=layout, num_cards=num_cards, precision=precision).total
        for layout in ("zero0", "zero1", "zero2", "zero3")
    ]
    assert zero == sorted(zero, reverse=True)
    assert zero[-1] == pytest.approx(zero[0] / num_cards)
    fsdp, plain = (
        state_bytes(10**9, layout=layout, num_cards=num_cards, precision=precision).total
        for layout in ("fsdp2", "ddp")
    )
    assert fsdp == pytest.approx(plain / num_cards)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_lost_between_cards_and_ram(layout):
    whole = state_bytes(10**6, layout=layout, num_cards=1, precision="bfloat16")
    assert whole.total + whole.ram == 16 * 10**6
    assert bool(whole.ram) == bool(LAYOUTS[layout].in_ram)


def build(config):
    torch.manual_seed(0)
    dense = isinstance(config, Qwen3Config)
    return (Qwen3ForCausalLM if dense else LimbeckMoeForCausalLM)(config)


def make_batch(config, *, records, tokens):
    ids = torch.randint(config.vocab_size, (records, tokens))
    return Batch(ids, ids, torch.arange(records), torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("name", CONFIGS)
def test_state_is_what_a_training_step_holds(name):
    config = CONFIGS[name]
    model = build(config).train()
    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    optimizer = torch.optim.AdamW(model.parameters())
    loss = objective(KeptForward(model), make_batch(config, records=2, tokens=16))
    loss.sum.backward()
    optimizer.step()
    held = training_memory(
        size_model(config, context_tokens=16),
        Workload(2, 16, "float32", "none"),
        layout="ddp",
        num_cards=1,
    )
    parameters = list(model.parameters())
    assert held.weights == sum(item.nbytes for item in parameters)
    assert held.gradients == sum(item.grad.nbytes for item in parameters)
    # A counter of steps stands beside the two moments of each tensor.
    moments = [
        value for state in optimizer.state.values() for key, value in state.items() if key != "step"
    ]
    assert held.optimizer == sum(item.nbytes for item in moments)
    assert held.gathered == held.exchange == held.frozen == 0


def measure_kept(config, *, records, tokens, precision, recomputing):
    """Bytes that autograd keeps for the backward pass, weights left out."""
    model = build(config).train()
    if recomputing == "layers":
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = {item.untyped_storage().data_ptr() for item in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    batch = make_batch(config, records=records, tokens=tokens)
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with mixed, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(KeptForward(model), batch)
    assert loss.count == records * (tokens - 1)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("recomputing", ["none", "layers"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_what_autograd_keeps_within_a_tenth(
    name, precision, recomputing, monkeypatch
):
    # The plan is of GPUs, where PyTorch computes the experts; the operator of a CPU keeps less.
    monkeypatch.setattr(experts_op, "fits", lambda *_, **__: False)
    config = CONFIGS[name]
    size = size_model(config, context_tokens=1)

    def predict(tokens, recomputing):
        return activation_bytes(size.shape, Workload(4, tokens, precision, recomputing))

    # The difference of two lengths leaves out casts of weights, which do not grow with tokens.
    measured = [
        measure_kept(config, records=4, tokens=tokens, precision=precision, recomputing=recomputing)
        for tokens in (96, 32)
    ]
    predicted = predict(96, recomputing) - predict(32, recomputing)
    # Logits and their gradient live at the turning point only; autograd keeps one copy of three.
    predicted -= (LOGIT_COPIES["next_token"] - 1) * 4 * 4 * 64 * config.vocab_size
    if recomputing == "layers":
        # The one layer that is recomputed does not exist yet when the backward pass begins.
        logits = LOGIT_COPIES["next_token"] * 4 * config.vocab_size
        outside = {"float32": 12, "bfloat16": 10}[precision] * config.hidden_size
        predicted -= (predict(96, "none") - predict(32, "none") - 256 * (logits + outside)) / 3
    assert predicted == pytest.approx(measured[0] - measured[1], rel=0.1)


def test_a_loss_in_chunks_keeps_two_gradients_and_one_chunk_of_logits():
    shape = size_model(DENSE, context_tokens=1).shape

    def predict(tokens, chunk_bytes=0):
        work = Workload(1, tokens, "float32", "none", "distill", chunk_bytes=chunk_bytes)
        return activation_bytes(shape, work)

    kept = []
    states = torch.randn(24, shape.hidden, requires_grad=True)
    head = torch.randn(shape.vocab, shape.hidden, requires_grad=True)
    mix = Mix(ForwardKl(kind="forward_kl"), temperature=2.0, weight=0.5, vocab=shape.vocab)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda item: kept.append(item.nbytes), lambda _: None
    ):
        chunked_loss(
            states=states,
            head=head,
            labels=torch.arange(24),
            mix=mix,
            output=FullLogits(torch.randn(24, shape.vocab)),
            chunk_tokens=8,
        )
    chunk = 8 * 4 * shape.vocab
    copies = LOGIT_COPIES["distill"]
    assert predict(24) - predict(24, chunk) == copies * 2 * chunk - sum(kept)
    # A chunk that holds all saves nothing.
    assert predict(24, 9 * chunk) - predict(24) == sum(kept)


def test_a_divided_head_makes_all_logits():
    size = size_model(DENSE, context_tokens=1)
    for layout, chosen in LAYOUTS.items():
        whole, chunked = (
            training_memory(
                size,
                Workload(4, 512, "bfloat16", "none", "distill", chunk_bytes=chunk_bytes),
                layout=layout,
                num_cards=2,
            ).activations
            for chunk_bytes in (0, 4096)
        )
        assert (chunked == whole) == ("weights" in chosen.divided)


def test_mixed_precision_keeps_a_cast_of_every_weight_that_is_multiplied():
    size = size_model(DENSE, context_tokens=1)
    lengths = [
        measure_kept(DENSE, records=1, tokens=tokens, precision="bfloat16", recomputing="none")
        for tokens in (32, 64)
    ]
    casts = 2 * lengths[0] - lengths[1]
    held = training_memory(size, Workload(1, 1, "bfloat16", "none"), layout="ddp", num_cards=1)
    assert casts == pytest.approx(held.gathered, rel=0.01)


def test_a_layer_is_gathered_whole_unless_its_experts_stay_apart():
    size = size_model(SPARSE["weighted_sum"], context_tokens=1)
    work = Workload(1, 1, "bfloat16", "none")
    layer = (size.parameters - size.embedding_parameters - 64) // 3
    assert size.unit_parameters == layer
    assert size.unit_expert_parameters == 8 * 3 * 64 * 48
    whole, apart = (
        training_memory(size, work, layout="zero3", num_cards=4, experts=experts).gathered
        for experts in ("gathered", "divided")
    )
    assert whole - apart == 3 * 2 * size.unit_expert_parameters


def test_a_live_teacher_lies_whole_on_every_card():
    size = size_model(DENSE, context_tokens=1)
    alone, beside = (
        training_memory(
            size,
            Workload(1, 8, "float32", "none", frozen_bytes=frozen),
            layout="zero3",
            num_cards=8,
        )
        for frozen in (0, 1000)
    )
    assert beside.total - alone.total == 1000


def test_serving_grows_with_answers_and_context():
    size = size_model(DENSE, context_tokens=64)
    stored = size.formats[2]
    one = serving_memory(size, stored, batch_records=1, context_tokens=64)
    more = serving_memory(size, stored, batch_records=8, context_tokens=64)
    assert one.weights == stored.total_bytes
    assert one.cache == 64 * 3 * 2 * 2 * 16 * 2
    assert (more.cache, more.working) == (8 * one.cache, 8 * one.working)
