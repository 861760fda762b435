"""The chunked loss is the plain one: value and gradients, whatever is taught and how it is cut."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import TrainingError
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.losses import chunked
from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.targets import FullLogits, HiddenAndHead, ImportanceSampled, TopK
from limbeck.models.batch import IGNORED
from tests.support import tiny_recipe

TOKENS, ROWS, VOCAB, HIDDEN = 11, 37, 33, 8


def make(kind):
    return resolve(DIVERGENCES, kind, what="divergence").model_validate({"kind": kind})


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets(form, temperature):
    states, head = draw(TOKENS, 12, seed=0), draw(ROWS, 12, seed=1)
    logits = (states @ head.T)[:, :VOCAB]
    if form == "projected":
        return HiddenAndHead(states, head)
    if form == "whole":
        return FullLogits(logits)
    if form == "top":
        values, ids = logits.topk(5, dim=-1)
        tail = (logits / temperature).scatter(1, ids, -torch.inf).logsumexp(dim=-1)
        return TopK(values, ids, tail, temperature)
    logs = (logits / temperature).log_softmax(dim=-1)
    ids = logs.exp().multinomial(6, replacement=True, generator=torch.Generator().manual_seed(2))
    weights = torch.full((TOKENS, 6), 1 / 6)
    weights[:, 4:] = 0
    return ImportanceSampled(ids, weights, logs.gather(1, ids), temperature)


def inputs():
    """States, head and bias as leaves, and labels of which two are ignored."""
    leaves = [draw(TOKENS, HIDDEN, seed=3), draw(ROWS, HIDDEN, seed=4), draw(ROWS, seed=5)]
    labels = torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(6))
    labels[[0, 7]] = IGNORED
    return [leaf.requires_grad_() for leaf in leaves], labels


def plain(leaves, labels, output, mix):
    """The same sum by autograd, over logits as a whole."""
    states, head, bias = leaves
    carried = labels != IGNORED
    logits = (states @ head.T + bias)[carried][:, : mix.vocab]
    kl = mix.divergence.total(logits, output.rows(carried), temperature=mix.temperature)
    ce = torch.nn.functional.cross_entropy(logits, labels[carried], reduction="sum")
    return mix.weight * kl + (1 - mix.weight) * ce


def agree(found, wanted):
    assert torch.allclose(found, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["projected", "whole", "top", "sampled"])
@pytest.mark.parametrize("kind", sorted(DIVERGENCES))
def test_value_and_gradients_are_the_plain_ones(kind, form, monkeypatch):
    if (kind, form) == ("adaptive", "sampled"):
        pytest.skip("drawn tokens cannot estimate it")
    monkeypatch.setattr(chunked, "TILE_BYTES", 2 * 4 * VOCAB)
    for temperature, weight in ((1.0, 0.7), (2.0, 0.7), (1.5, 1.0), (2.0, 0.0)):
        mix = Mix(make(kind), temperature=temperature, weight=weight, vocab=VOCAB)
        output = targets(form, temperature)
        ours, labels = inputs()
        theirs, _ = inputs()
        found = chunked_loss(
            states=ours[0],
            head=ours[1],
            bias=ours[2],
            labels=labels,
            output=output,
            mix=mix,
            chunk_tokens=4,
        )
        wanted = plain(theirs, labels, output, mix)
        (found.sum * 0.25).backward()
        (wanted * 0.25).backward()
        assert found.count == TOKENS - 2
        agree(found.sum, wanted)
        for one, other in zip(ours, theirs, strict=True):
            agree(one.grad, other.grad)


def test_gradients_equal_a_float64_reference():
    mix = Mix(make("forward_kl"), temperature=2.0, weight=0.5, vocab=VOCAB)
    output, (ours, labels) = targets("projected", 2.0), inputs()
    chunked_loss(states=ours[0], head=ours[1], labels=labels, output=output, mix=mix).sum.backward()
    theirs = [leaf.detach().double().requires_grad_() for leaf in ours[:2]]
    carried = labels != IGNORED
    logits = (theirs[0] @ theirs[1].T)[carried][:, :VOCAB]
    teacher = (output.hidden_states.double() @ output.head.double().T)[carried][:, :VOCAB]
    kl = torch.nn.functional.kl_div(
        (logits / 2).log_softmax(dim=-1),
        (teacher / 2).log_softmax(dim=-1),
        log_target=True,
        reduction="sum",
    )
    ce = torch.nn.functional.cross_entropy(logits, labels[carried], reduction="sum")
    (0.5 * 4 * kl + 0.5 * ce).backward()
    for one, other in zip(ours, theirs, strict=False):
        assert (one.grad - other.grad).norm() / other.grad.norm() < 1e-6


def test_how_tokens_are_cut_changes_nothing_and_padding_rows_learn_nothing():
    mix = Mix(make("reverse_kl"), temperature=1.5, weight=0.6, vocab=VOCAB)
    found = []
    for chunk in (1, 3, 100):
        leaves, labels = inputs()
        loss = chunked_loss(
            states=leaves[0],
            head=leaves[1],
            labels=labels,
            output=targets("projected", 1.5),
            mix=mix,
            chunk_tokens=chunk,
        )
        loss.sum.backward()
        assert (leaves[1].grad[VOCAB:] == 0).all()
        assert (leaves[0].grad[labels == IGNORED] == 0).all()
        found.append((loss.sum, leaves[0].grad, leaves[1].grad))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            agree(two, one)


def test_without_a_gradient_the_value_is_the_same_and_a_frozen_head_gets_none():
    mix = Mix(make("forward_kl"), temperature=2.0, weight=0.7, vocab=VOCAB)
    (states, head, _), labels = inputs()
    given = {"labels": labels, "output": targets("top", 2.0), "mix": mix}
    learnt = chunked_loss(states=states, head=head.detach(), **given)
    learnt.sum.backward()
    with torch.no_grad():
        unlearnt = chunked_loss(states=states, head=head, **given)
    assert unlearnt.sum == learnt.sum
    assert states.grad is not None
    assert head.grad is None


def test_no_token_with_a_label_is_a_sum_of_zero():
    mix = Mix(make("forward_kl"), temperature=2.0, weight=0.7, vocab=VOCAB)
    (states, head, _), labels = inputs()
    loss = chunked_loss(
        states=states,
        head=head,
        labels=torch.full_like(labels, IGNORED),
        output=targets("projected", 2.0),
        mix=mix,
    )
    loss.sum.backward()
    assert (loss.sum.item(), loss.count) == (0.0, 0)
    assert head.grad.abs().max() == 0


def test_a_second_backward_pass_is_refused():
    mix = Mix(make("forward_kl"), temperature=2.0, weight=0.7, vocab=VOCAB)
    (states, head, _), labels = inputs()
    loss = chunked_loss(
        states=states, head=head, labels=labels, output=targets("projected", 2.0), mix=mix
    ).sum
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * loss).backward()


def test_sampled_tokens_are_refused_where_they_hold_too_little():
    mix = Mix(make("adaptive"), temperature=2.0, weight=0.7, vocab=VOCAB)
    (states, head, _), labels = inputs()
    with pytest.raises(TrainingError, match="adaptive"):
        chunked_loss(
            states=states, head=head, labels=labels, output=targets("sampled", 2.0), mix=mix
        )


def test_low_precision_states_stay_low_and_come_close():
    mix = Mix(make("forward_kl"), temperature=1.0, weight=0.5, vocab=VOCAB)
    (states, head, _), labels = inputs()
    exact = chunked_loss(
        states=states, head=head, labels=labels, output=targets("projected", 1.0), mix=mix
    )
    low = [leaf.detach().bfloat16().requires_grad_() for leaf in (states, head)]
    found = chunked_loss(
        states=low[0], head=low[1], labels=labels, output=targets("projected", 1.0), mix=mix
    )
    exact.sum.backward()
    found.sum.backward()
    assert low[1].grad.dtype == torch.bfloat16
    assert found.sum.item() == pytest.approx(exact.sum.item(), rel=0.02)
    assert (
        torch.nn.functional.cosine_similarity(
            low[1].grad.float().flatten(), head.grad.flatten(), dim=0
        )
        > 0.99
    )


def test_autocast_does_not_round_the_sum():
    mix = Mix(make("forward_kl"), temperature=1.0, weight=0.3, vocab=VOCAB)
    (states, head, _), labels = inputs()
    given = {"labels": labels, "output": targets("whole", 1.0), "mix": mix}
    exact = chunked_loss(states=states, head=head, **given)
    with torch.autocast("cpu", torch.bfloat16):
        assert chunked_loss(states=states, head=head, **given).sum == exact.sum


@pytest.mark.parametrize("form", ["whole", "sampled"])
def test_the_form_that_is_compiled_gives_the_same(form):
    mix = Mix(make("jensen_shannon"), temperature=2.0, weight=0.7, vocab=VOCAB)
    labels, output = inputs()[1].clamp(min=0), targets(form, 2.0)
    found, wanted = (draw(TOKENS, VOCAB, seed=7) for _ in range(2))
    numbers = torch.tensor([mix.temperature, mix.weight])
    agree(
        chunked._tile_loss_traced(found, output, labels, mix.divergence, *numbers, True),
        chunked._tile_loss(wanted, output, labels, mix, True),
    )
    agree(found, wanted)


SCHEDULED = """
import torch
from torch._dynamo.utils import counters
from limbeck.distillation.targets import FullLogits
from limbeck.distillation.losses import chunked
from limbeck.distillation.losses.config import ForwardKl

program = chunked._compiled("aot_eager")
chunked._compiled = lambda: program
for step in range(4):
    mix = chunked.Mix(ForwardKl(kind="forward_kl"), 1.0 + step / 4, step / 3, vocab=33)
    logits, output = torch.randn(5 + step, 33), FullLogits(torch.randn(5 + step, 33))
    labels = torch.randint(33, (5 + step,))
    found, wanted = logits.clone(), logits.clone()
    one = chunked._tile_loss_compiled(found, output, labels, mix, True)
    other = chunked._tile_loss(wanted, output, labels, mix, True)
    torch.testing.assert_close((one, found), (other, wanted), rtol=1e-4, atol=1e-5)
assert counters["stats"]["unique_graphs"] == 1, counters["stats"]
"""


def test_a_schedule_compiles_once(tmp_path):
    # In a process of its own: the checks of shapes that the tests add cannot be traced.
    (tmp_path / "code.py").write_text(SCHEDULED)
    tiny_recipe.warm().call("runpy:run_path", tmp_path / "code.py", output=tmp_path / "log")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_plain_loss_an_exact_gradient_and_a_small_peak():
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.chunked_on_gpu"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
