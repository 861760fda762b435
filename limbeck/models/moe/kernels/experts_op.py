"""`limbeck::experts`: all experts' work as one operator of torch, computed by `experts.cpp`.

Registered with shapes and gradients, so `torch.compile`, checkpointing and autograd take it as any
other operator. float32 and bfloat16 on a CPU, SiLU; sums are float32.
"""

import ctypes

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.models.moe.kernels.build import open_library

SOURCES = ("experts.cpp", "gemm.h", "simd.h")
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@torch.compiler.assume_constant_result
def is_available() -> bool:
    """Whether the operator is compiled here; the first call may compile it."""
    return open_library(*SOURCES) is not None


def fits(x: Tensor, *, gate_up: Tensor) -> bool:
    """Whether the operator computes such tensors here."""
    sizes_fit = x.shape[-1] % 4 == 0 and gate_up.shape[1] % 8 == 0
    return x.device.type == "cpu" and x.dtype in DTYPES and sizes_fit and is_available()


def compute_experts(
    x: Float[Tensor, "tokens hidden"],
    picked: Int[Tensor, "tokens picks"],
    weights: Float[Tensor, "tokens picks"] | None,
    *,
    gate_up: Float[Tensor, "experts width2 hidden"],
    down: Float[Tensor, "experts hidden width"],
) -> Tensor:
    """With weights each token's weighted sum, without them the output of each of its experts.

    Raises:
        IndexError: a token picks an expert that there is not.
    """
    tracked = any(item.requires_grad for item in (x, gate_up, down)) or (
        weights is not None and weights.requires_grad
    )
    keep = torch.is_grad_enabled() and tracked
    return torch.ops.limbeck.experts(x, picked, weights, gate_up, down, keep)[0]


torch.library.define(
    "limbeck::experts",
    "(Tensor x, Tensor picked, Tensor? weights, Tensor gate_up, Tensor down, bool keep)"
    " -> (Tensor, Tensor)",
)
torch.library.define(
    "limbeck::experts_backward",
    "(Tensor grad_out, Tensor x, Tensor picked, Tensor? weights, Tensor gate_up, Tensor down,"
    " Tensor kept) -> (Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("limbeck::experts")
def _shape_forward(
    x: Tensor, picked: Tensor, weights: Tensor | None, gate_up: Tensor, down: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """The outputs, and what the backward pass needs: gate and up of each pair, or nothing."""
    lead = picked.shape if weights is None else picked.shape[:1]
    kept = (picked.shape[0] * picked.shape[1], gate_up.shape[1]) if keep else (0,)
    return x.new_empty(*lead, x.shape[1]), x.new_empty(kept, dtype=torch.float32)


@torch.library.register_fake("limbeck::experts_backward")
def _shape_backward(
    grad_out: Tensor,
    x: Tensor,
    picked: Tensor,
    weights: Tensor | None,
    gate_up: Tensor,
    down: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weights (empty without them), gate_up and down."""
    grad_weights = x.new_empty(0 if weights is None else picked.shape, dtype=torch.float32)
    # Not `empty_like`: the compiled code writes dense rows, whatever the strides of its inputs.
    made = [item.new_empty(item.shape) for item in (x, gate_up, down)]
    return made[0], grad_weights, made[1], made[2]


@torch.library.impl("limbeck::experts", "CPU")
def _forward(
    x: Tensor, picked: Tensor, weights: Tensor | None, gate_up: Tensor, down: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    out, kept = _shape_forward(x, picked, weights, gate_up, down, keep)
    adds = weights is not None or x.dtype != torch.float32
    pairs = x.new_empty((*picked.shape, x.shape[1]) if adds else 0, dtype=torch.float32)
    _call(
        "forward",
        x,
        picked,
        weights,
        gate_up,
        down,
        others=(kept if keep else None, out, pairs),
    )
    return out, kept


@torch.library.impl("limbeck::experts_backward", "CPU")
def _backward(
    grad_out: Tensor,
    x: Tensor,
    picked: Tensor,
    weights: Tensor | None,
    gate_up: Tensor,
    down: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = _shape_backward(grad_out, x, picked, weights, gate_up, down, kept)
    grad_x, grad_weights, grad_gate_up, grad_down = made
    pairs = x.new_empty((*picked.shape, x.shape[1]), dtype=torch.float32)
    _call(
        "backward",
        x,
        picked,
        weights,
        gate_up,
        down,
        others=(
            kept,
            grad_out.to(x.dtype),
            grad_x,
            None if weights is None else grad_weights,
            grad_gate_up,
            grad_down,
            pairs,
        ),
    )
    return made


def _call(
    name: str,
    x: Tensor,
    picked: Tensor,
    weights: Tensor | None,
    gate_up: Tensor,
    down: Tensor,
    *,
    others: tuple[Tensor | None, ...],
) -> None:
    """Call a compiled function; the interpreter is free for other threads meanwhile."""
    library = open_library(*SOURCES)
    assert library is not None, "fits() is called first"
    weights = None if weights is None else weights.float()
    tensors = [
        None if item is None else item.contiguous()
        for item in (x, picked.long(), weights, gate_up, down, *others)
    ]
    sizes = (*picked.shape, gate_up.shape[0], x.shape[1], down.shape[2])
    status = getattr(library, f"limbeck_{name}_{DTYPES[x.dtype]}")(
        *map(ctypes.c_int64, sizes),
        ctypes.c_int(torch.get_num_threads()),
        *(ctypes.c_void_p(None if item is None else item.data_ptr()) for item in tensors),
    )
    if status != 0:
        low, high = picked.min().item(), picked.max().item()
        raise IndexError(f"picked experts {low} to {high}: expected 0 to {gate_up.shape[0] - 1}")


def _save_for_backward(ctx, inputs, output) -> None:
    x, picked, weights, gate_up, down, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, picked, weights, gate_up, down, output[1])


def _differentiate(ctx, grad_out, _):
    if grad_out is None:
        return (None,) * 6
    x, picked, weights, gate_up, down, kept = ctx.saved_tensors
    grad_x, grad_weights, grad_gate_up, grad_down = torch.ops.limbeck.experts_backward(
        grad_out, x, picked, weights, gate_up, down, kept
    )
    grad_weights = None if weights is None else grad_weights.to(weights.dtype)
    return grad_x, None, grad_weights, grad_gate_up, grad_down, None


def _refuse(ctx, *grads):
    raise NotImplementedError(
        "the compiled experts have no second derivative; set LIMBECK_NATIVE=0 to use PyTorch's"
    )


torch.library.register_autograd(
    "limbeck::experts", _differentiate, setup_context=_save_for_backward
)
torch.library.register_autograd("limbeck::experts_backward", _refuse)
