"""The proximal step is its closed form, and brings exactly the wanted groups to zero."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from limbeck.models.structure import find_channels, find_heads, view_groups
from limbeck.pruning.config import GroupLasso
from limbeck.pruning.group_lasso import Regulariser, count_zero, measure_rms, shrink, soft_threshold


def gather(model, groups):
    views = [
        view_groups(model.get_parameter(part.parameter), part=part, num_groups=groups.num_groups)
        for part in groups.parts
    ]
    return torch.cat([view.flatten(1) for view in views], dim=1).detach().clone()


@pytest.mark.parametrize("find", [find_channels, find_heads])
@pytest.mark.parametrize("concavity", [0.0, 2.0])
def test_shrinking_is_the_closed_form_and_minimises_its_objective(
    dense_config, tokenizer, find, concavity
):
    config = dense_config.replace(num_attention_heads=4, num_key_value_heads=4)
    dense = config.build(tokenizer=tokenizer, seed=0)
    groups = find(dense)[1]
    before = gather(dense, groups)
    norms = before.norm(dim=1)
    rms = norms / before.shape[1] ** 0.5
    strength = shrink(dense, groups=groups, num_zero=2, fraction=0.4, concavity=concavity)
    assert strength == pytest.approx(0.4 * float(rms.sort().values[1]), rel=1e-6)
    pressure = strength * (rms.sort().values[1] / rms) ** concavity * before.shape[1] ** 0.5
    expected = before * (1 - pressure / norms).clamp(min=0).unsqueeze(1)
    after = gather(dense, groups)
    torch.testing.assert_close(after, expected)

    def objective(values):
        distance = (values - before).square().sum(dim=1) / 2
        return distance + pressure * values.norm(dim=1)

    least = objective(after)
    for scale in (0.9, 0.99, 1.01, 1.1):
        assert bool((objective(after * scale) >= least - 1e-6).all())


def test_a_whole_fraction_zeroes_exactly_the_smallest(dense):
    for groups in find_channels(dense):
        smallest = set(measure_rms(dense, groups=groups).argsort()[:7].tolist())
        shrink(dense, groups=groups, num_zero=7, fraction=1.0, concavity=0.0)
        zero = (gather(dense, groups) == 0).all(dim=1)
        assert set(zero.nonzero().flatten().tolist()) == smallest
        assert count_zero(dense, groups=groups) == 7


def test_no_group_above_its_threshold_is_lost():
    rms = torch.tensor([0.0, 0.5, 1.0, 2.0])
    factors = soft_threshold(rms, thresholds=torch.full((4,), 1.0))
    assert factors.tolist() == [0.0, 0.0, 0.0, 0.5]
    assert soft_threshold(rms, thresholds=torch.zeros(4)).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_bounds_are_checked():
    for wrong in ({"reach_ratio": 0}, {"reach_ratio": 1.1}, {"concavity": -1}, {"lambda": 1}):
        with pytest.raises(ValidationError):
            GroupLasso.model_validate(wrong)


def tiny():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=30,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
        )
    )


def test_a_trained_block_is_spared_by_the_default_where_the_plain_lasso_takes_it_down():
    torch.manual_seed(0)
    losses = []
    for lasso in (GroupLasso(), GroupLasso(concavity=0.0)):
        torch.manual_seed(0)
        model = Toy(16, 40)
        truth, groups = copy.deepcopy(model), toy_groups(model)
        lrs = [0.001] * 40
        regulariser = Regulariser(model, num_zero={groups: 8}, lrs=lrs, config=lasso)
        optimizer = torch.optim.Adam(model.parameters(), lr=lrs[0])
        for step in range(len(lrs)):
            x = torch.randn(64, 16)
            target = truth(x).detach()
            loss = (model(x) - target).square().mean() / target.var()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            regulariser(step)
        assert count_zero(model, groups=groups) == 8
        losses.append(loss.item())
    assert losses[0] < 0.3
    assert losses[0] < losses[1] / 2


def train(model, *, steps, start=0, optimizer=None, lasso=None):
    lrs = [0.01 * (1 - step / steps * 0.9) for step in range(steps)]
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.01)
    num_zero = dict.fromkeys(find_channels(model), 4)
    num_zero |= dict.fromkeys(find_heads(model), 1)
    regulariser = Regulariser(model, num_zero=num_zero, lrs=lrs, config=lasso or GroupLasso())
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 30, (4, 8), generator=generator)
        model(input_ids=ids, labels=ids).loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = lrs[step]
        optimizer.step()
        optimizer.zero_grad()
        regulariser(step)
        yield step, optimizer


@pytest.mark.parametrize("reach", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("concavity", [0.0, 3.0])
def test_the_wanted_numbers_are_zero_from_the_step_reached(reach, concavity):
    model = tiny()
    zeros = []
    for _ in train(model, steps=20, lasso=GroupLasso(reach_ratio=reach, concavity=concavity)):
        channels = [count_zero(model, groups=groups) for groups in find_channels(model)]
        heads = [count_zero(model, groups=groups) for groups in find_heads(model)]
        zeros.append((channels, heads))
    reached = round(20 * reach) - 1
    assert all(item == ([4, 4], [1, 1]) for item in zeros[reached:])
    assert zeros[0] == ([0, 0], [0, 0])


def test_a_resumed_run_is_the_uninterrupted_one():
    whole = tiny()
    saved = None
    for step, optimizer in train(whole, steps=16):
        if step == 6:
            saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    resumed = tiny()
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=0.01)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    for _ in train(resumed, steps=16, start=7, optimizer=optimizer):
        pass
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


class Toy(nn.Module):
    """One gated feed-forward block under the names of a decoder."""

    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def toy_groups(model):
    from limbeck.models.structure import Groups, TensorSlice

    names = (("gate_proj.weight", 0), ("up_proj.weight", 0), ("down_proj.weight", 1))
    width = model.gate_proj.weight.shape[0]
    return Groups("channels", 0, width, tuple(TensorSlice(name, axis, 1) for name, axis in names))


def fit_toy(*, num_zero, concavity=0.0, steps=1500):
    torch.manual_seed(0)
    truth, model = Toy(32, 48), Toy(32, 256)
    groups = toy_groups(model)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    lrs = [0.004 * (1 - step / steps) + 1e-5 for step in range(steps)]
    regulariser = Regulariser(
        model, num_zero={groups: num_zero}, lrs=lrs, config=GroupLasso(concavity=concavity)
    )
    variance = truth(torch.randn(4096, 32)).var().detach()
    for step in range(steps):
        x = torch.randn(128, 32)
        with torch.no_grad():
            target = truth(x)
        loss = (model(x) - target).square().mean() / variance
        optimizer.param_groups[0]["lr"] = lrs[step]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        regulariser(step)
    with torch.no_grad():
        x = torch.randn(4096, 32)
        return model, groups, float((model(x) - truth(x)).square().mean() / variance)


def test_a_block_wider_than_its_task_loses_the_excess_at_no_cost():
    model, groups, loss = fit_toy(num_zero=192)
    assert count_zero(model, groups=groups) == 192
    assert loss < 3e-4
