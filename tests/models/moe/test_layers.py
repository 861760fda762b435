"""The compiled experts against plain PyTorch: values, gradients, odd shapes, threads, compilers."""

import pytest
import torch
from torch.nn import functional

from limbeck.models.moe.fusion import weighted_sum
from limbeck.models.moe.kernels import experts_op
from limbeck.models.moe.layers import Experts, GateRules, SparseFeedForward, multiply_groups
from tests.support import tiny_recipe

compiled = pytest.mark.skipif(
    not experts_op.is_available(), reason="no C++ compiler here: the PyTorch path is used"
)
NAMES = ("x", "weights", "gate_up", "down")


def make(tokens, *, experts=8, picks=2, hidden=32, width=24, dtype=torch.float32, seed=0):
    """Inputs of the experts by name; weights sum to one, as a gate's do."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    weights, picked = draw(tokens, experts).softmax(dim=-1).topk(picks)
    return {
        "x": draw(tokens, hidden).to(dtype),
        "picked": picked,
        "weights": weights / weights.sum(dim=1, keepdim=True),
        "gate_up": (draw(experts, 2 * width, hidden) / hidden**0.5).to(dtype),
        "down": (draw(experts, hidden, width) / width**0.5).to(dtype),
    }


def reference(x, picked, weights, *, gate_up, down):
    """Every token through each of its experts, in float64 unless told otherwise."""
    gate, up = torch.einsum("nkhd,nd->nkh", gate_up[picked], x).chunk(2, dim=-1)
    outputs = torch.einsum("nkdh,nkh->nkd", down[picked], functional.silu(gate) * up)
    return outputs if weights is None else weighted_sum(outputs, weights)


def differentiate(compute, inputs, *, weighted, direction, dtype=None):
    """The output, and its gradients along a direction, by name."""
    leaves = {
        name: inputs[name].detach().to(dtype or inputs[name].dtype).requires_grad_()
        for name in NAMES
        if weighted or name != "weights"
    }
    out = compute(
        leaves["x"],
        inputs["picked"],
        leaves.get("weights"),
        gate_up=leaves["gate_up"],
        down=leaves["down"],
    )
    grads = torch.autograd.grad(out, list(leaves.values()), direction.to(out.dtype))
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


def compare(inputs, *, weighted, tolerance):
    """Assert that each result is within a tolerance of the reference's largest number."""
    picked = inputs["picked"]
    shape = inputs["x"].shape if weighted else (*picked.shape, inputs["x"].shape[1])
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    direction = direction.to(inputs["x"].dtype)
    ours = differentiate(experts_op.compute_experts, inputs, weighted=weighted, direction=direction)
    theirs = differentiate(
        reference, inputs, weighted=weighted, direction=direction, dtype=torch.float64
    )
    for name, expected in theirs.items():
        limit = tolerance * expected.abs().max().item()
        torch.testing.assert_close(
            ours[name].double(),
            expected,
            atol=limit,
            rtol=0.0,
            msg=lambda text, name=name: f"{name}: {text}",
        )


SHAPES = [
    {"tokens": 1},
    {"tokens": 7, "picks": 1},
    {"tokens": 40, "picks": 3, "experts": 3},
    {"tokens": 70, "hidden": 4, "width": 4},
    {"tokens": 33, "hidden": 36, "width": 20},
    {"tokens": 40, "experts": 2, "hidden": 264, "width": 280},
    {"tokens": 300, "experts": 5, "hidden": 72, "width": 40},
]


@compiled
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_equals_the_reference_forward_and_backward(shape, weighted):
    # Sums of up to a thousand products: rounding grows with the root of their number.
    compare(make(**shape), weighted=weighted, tolerance=3e-6)


@compiled
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_equals_the_reference_to_its_precision(shape, weighted):
    # Results and what lies between the products are rounded to 8 bits: a few times 2^-8.
    compare(make(**shape, dtype=torch.bfloat16), weighted=weighted, tolerance=1.5e-2)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_expert_may_take_all_and_the_others_get_zero_gradients(dtype):
    inputs = make(600, dtype=dtype)
    inputs["picked"] = torch.full((600, 1), 3)
    inputs["weights"] = torch.rand(600, 1)
    compare(inputs, weighted=True, tolerance=3e-6 if dtype == torch.float32 else 1.5e-2)
    out = differentiate(
        experts_op.compute_experts, inputs, weighted=True, direction=torch.ones(600, 32)
    )
    others = torch.arange(8) != 3
    assert not out["gate_up"][others].any() and not out["down"][others].any()
    assert out["gate_up"][3].any() and out["down"][3].any()


@compiled
def test_no_tokens_give_no_outputs_and_zero_gradients():
    inputs = make(0)
    out = differentiate(
        experts_op.compute_experts, inputs, weighted=True, direction=torch.zeros(0, 32)
    )
    assert out["out"].shape == (0, 32)
    assert not out["gate_up"].any() and not out["down"].any()


@compiled
@pytest.mark.parametrize("tokens", [5, 64, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(tokens, dtype):
    inputs = make(tokens, dtype=dtype)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            found.append(
                differentiate(
                    experts_op.compute_experts,
                    inputs,
                    weighted=True,
                    direction=torch.ones(tokens, 32),
                )
            )
        finally:
            torch.set_num_threads(1)
    for name, first in found[0].items():
        assert all(torch.equal(first, other[name]) for other in found[1:]), name


@compiled
def test_experts_that_nobody_picks_are_not_read():
    inputs = make(1, experts=64)
    weights = {name: inputs.pop(name) for name in ("gate_up", "down")}
    expected = reference(**inputs, **weights)
    unpicked = torch.ones(64, dtype=torch.bool)
    unpicked[inputs["picked"]] = False
    for item in weights.values():
        item[unpicked] = torch.nan
    torch.testing.assert_close(experts_op.compute_experts(**inputs, **weights), expected)


@compiled
def test_tensors_may_lie_in_memory_in_any_way():
    inputs = make(40)
    expected = experts_op.compute_experts(**inputs)
    for name in ("x", "picked", "weights", "gate_up", "down"):
        turned = inputs[name].transpose(-1, -2).contiguous().transpose(-1, -2)
        assert not turned.is_contiguous()
        assert torch.equal(experts_op.compute_experts(**inputs | {name: turned}), expected), name
    inputs["x"] = inputs["x"][:1].expand(40, -1).requires_grad_()
    experts_op.compute_experts(**inputs).sum().backward()
    assert inputs["x"].grad is None or inputs["x"].grad.shape == (40, 32)


@compiled
@pytest.mark.parametrize("wrong", [-1, 8])
def test_an_expert_that_there_is_not_is_refused(wrong):
    inputs = make(6)
    inputs["picked"][3, 1] = wrong
    with pytest.raises(IndexError, match="expected 0 to 7"):
        experts_op.compute_experts(**inputs)


@compiled
def test_a_second_derivative_is_refused():
    inputs = make(6)
    inputs["x"].requires_grad_()
    inputs["down"].requires_grad_()
    (grad,) = torch.autograd.grad(
        experts_op.compute_experts(**inputs).sum(), inputs["x"], create_graph=True
    )
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def make_layer(*, activation="silu", dtype=torch.float32, picks=2) -> SparseFeedForward:
    torch.manual_seed(0)
    layer = SparseFeedForward(
        GateRules(picks), num_experts=8, hidden=32, width=24, activation=activation
    )
    for item in layer.parameters():
        torch.nn.init.normal_(item, std=0.2)
    return layer.to(dtype)


def plain(layer: SparseFeedForward) -> SparseFeedForward:
    """The same layer on the PyTorch path."""
    layer.experts.has_operator = False
    return layer


@compiled
def test_the_layer_is_the_same_with_and_without_the_operator():
    x = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(2))
    found = []
    for layer in (make_layer(), plain(make_layer())):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)[0]
        grads = torch.autograd.grad(out.square().sum(), [leaf, *layer.parameters()])
        found.append((out, *grads))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@compiled
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("tokens", [1, 30])
def test_modes_of_autograd_give_the_same_numbers(guard, tokens):
    layer = make_layer()
    x = torch.randn(1, tokens, 32)
    with guard():
        out = layer(x)[0]
    torch.testing.assert_close(out, plain(layer)(x)[0], atol=1e-5, rtol=1e-4)


@compiled
@pytest.mark.parametrize("tokens", [1, 30])
def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients(tokens):
    layer = make_layer()
    x = torch.randn(1, tokens, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer.experts(x[0], torch.zeros(tokens, 2, dtype=torch.long))
        fused = layer(x)[0]
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), layer(x)[0], atol=3e-2, rtol=3e-2)
    fused.float().sum().backward()
    assert layer.experts.gate_up_proj.grad.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x)[0], fused.detach(), atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("tokens", [1, 30])
def test_other_types_and_activations_take_the_pytorch_path(activation, tokens):
    layer = make_layer(activation=activation, dtype=torch.float64)
    x = torch.randn(1, tokens, 32, dtype=torch.float64)
    with torch.no_grad():
        out = layer(x)[0]
    single = make_layer(activation=activation)(x.float())[0]
    torch.testing.assert_close(out.float(), single, atol=1e-5, rtol=1e-4)


def test_the_pytorch_path_has_the_right_gradients():
    experts = make_layer(dtype=torch.float64).experts
    inputs = make(5, dtype=torch.float64)
    x, weights = inputs["x"].requires_grad_(), inputs["weights"].double().requires_grad_()

    def compute(x, weights, gate_up, down):
        stand_in = {"gate_up_proj": gate_up, "down_proj": down}
        return torch.func.functional_call(experts, stand_in, (x, inputs["picked"], weights))

    leaves = (experts.gate_up_proj, experts.down_proj)
    assert torch.autograd.gradcheck(compute, (x, weights, *leaves), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_are_multiplied_each_by_its_weights(dtype):
    rows, weights = torch.randn(9, 8, dtype=dtype), torch.randn(4, 12, 8, dtype=dtype)
    counts = torch.tensor([3, 0, 5, 1])
    found = multiply_groups(rows, weights, counts=counts)
    groups = torch.arange(4).repeat_interleave(counts)
    torch.testing.assert_close(found, torch.einsum("si,soi->so", rows, weights[groups]))


COMPILE = """
import torch
from limbeck.models.moe.layers import GateRules, SparseFeedForward
torch.manual_seed(0)
layer = SparseFeedForward(GateRules(2), num_experts=8, hidden=32, width=24, activation="silu")
weights = list(layer.parameters())
for item in weights:
    torch.nn.init.normal_(item, std=0.2)
x = torch.randn(1, 30, 32)
expected = layer(x)[0]
theirs = torch.autograd.grad(expected.square().sum(), weights)
for backend in ("eager", "aot_eager"):
    together = torch.compile(layer, backend=backend, fullgraph=True)
    out = together(x)[0]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), weights), theirs)
    with torch.inference_mode():
        torch.testing.assert_close(together(x)[0], expected)
"""


@compiled
def test_the_layer_compiles_without_a_graph_break(tmp_path):
    # In a process of its own: the checks of shapes that the tests add cannot be traced.
    (tmp_path / "code.py").write_text(COMPILE)
    tiny_recipe.warm().call("runpy:run_path", tmp_path / "code.py", output=tmp_path / "log")


@compiled
def test_the_operator_is_registered_as_torch_asks():
    inputs = make(12)
    tensors = [
        inputs[name].requires_grad_(name != "picked")
        for name in (
            "x",
            "picked",
            "weights",
            "gate_up",
            "down",
        )
    ]
    torch.library.opcheck(torch.ops.limbeck.experts.default, (*tensors, True))


def test_names_and_shapes_of_the_weights_are_qwen3_moes():
    experts = Experts(num_experts=8, hidden=32, width=24, activation="silu")
    shapes = {name: tuple(item.shape) for name, item in experts.state_dict().items()}
    assert shapes == {"gate_up_proj": (8, 48, 32), "down_proj": (8, 32, 24)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 300])
def test_a_gpu_gives_the_same_numbers(dtype, tokens):
    layer = make_layer(dtype=dtype)
    x = torch.randn(1, tokens, 32, dtype=dtype)
    expected = layer(x)[0]
    found = layer.cuda()(x.cuda())[0]
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=tolerance)
