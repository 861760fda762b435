"""A student's divergence and cross-entropy from its hidden states, without its logits as a whole.

Logits of a few tokens at a time are computed in one buffer, and turned in place, a few rows at a
time, into their gradient, from which those of states and head follow at once: the backward pass
computes nothing, and the peak memory depends on the chunk and not on the number of tokens. The
idea is Liger's (arXiv:2410.10989); the divergences are those of `divergences.py`.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.distillation.losses.config import CHUNK_BYTES, Divergence, ForwardKl
from limbeck.distillation.losses.top_k_log_probs import Scalar
from limbeck.distillation.targets import TeacherOutput
from limbeck.models.batch import IGNORED
from limbeck.objectives.base import Loss

TILE_BYTES = 2**22
"""Of the rows computed at once on a CPU: their intermediate results stay in its cache."""
LossSums = Float[Tensor, "2"]
"""The divergence and the cross-entropy, summed over tokens."""


@dataclass(frozen=True)
class Mix:
    """What is computed of each token, and on how much of the vocabulary."""

    divergence: Divergence
    temperature: float
    weight: float
    """Share of the teacher; the rest is cross-entropy."""
    vocab: int
    """Real tokens; the head's rows from here on are padding and take no part."""
    compiling: Literal["auto", "never"] = "auto"
    """`auto` compiles the loss of a chunk on a GPU."""

    @property
    def weights(self) -> Float[Tensor, "2"]:
        """Of both sums."""
        return torch.tensor([self.weight, 1 - self.weight])


def chunked_loss(
    *,
    states: Float[Tensor, "tokens hidden"],
    head: Float[Tensor, "rows hidden"],
    labels: Int[Tensor, " tokens"],
    output: TeacherOutput,
    mix: Mix,
    bias: Float[Tensor, " rows"] | None = None,
    chunk_tokens: int = 0,
) -> Loss:
    """w T^2 D + (1 - w) CE over the tokens with a label, as of logits `states @ head.T + bias`.

    Tokens whose label is `IGNORED` carry neither. `chunk_tokens` is how many share the buffer; 0
    takes as many as `CHUNK_BYTES` hold. LossSums and softmax are float32.

    Raises:
        TrainingError: sampled tokens cannot estimate this divergence.
    """
    mix.divergence.check(output)
    carried = labels != IGNORED
    if not carried.all():
        states, labels, output = states[carried], labels[carried], output.rows(carried)
    chunk = chunk_tokens or max(1, CHUNK_BYTES // (4 * mix.vocab))
    # Of equal size, so that none is too small to be fast.
    chunk = max(1, math.ceil(len(labels) / max(1, math.ceil(len(labels) / chunk))))
    learns = torch.is_grad_enabled() and any(
        item is not None and item.requires_grad for item in (states, head, bias)
    )
    total, sums = cast(
        tuple[Tensor, Tensor],
        _Chunked.apply(states, head, bias, labels, output, mix, chunk, learns),
    )
    kl, ce = sums.tolist()
    return Loss(total, labels.numel(), {"kl": kl, "ce": ce})


class _Chunked(torch.autograd.Function):
    """The mixed sum; gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        output: TeacherOutput,
        mix: Mix,
        chunk: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(states.device.type, enabled=False):
            needs_grad = [needed and learns for needed in ctx.needs_input_grad[:3]]
            sums, gradients = _pass_over(
                states,
                head,
                bias,
                labels=labels,
                output=output,
                mix=mix,
                chunk=chunk,
                needs_grad=needs_grad,
            )
            total = sums @ mix.weights.to(sums)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # In place: a second backward pass over the same loss is refused by autograd.
        scale = grad_outputs[0]
        gradients = [
            None if item is None else item if scale == 1 else item.mul_(scale)
            for item in ctx.saved_tensors
        ]
        return *gradients, None, None, None, None, None


def _pass_over(
    states: Tensor,
    head: Tensor,
    bias: Tensor | None,
    *,
    labels: Tensor,
    output: TeacherOutput,
    mix: Mix,
    chunk: int,
    needs_grad: list[bool],
) -> tuple[LossSums, list[Tensor | None]]:
    """The sums, and those gradients of states, head and bias that are wanted."""
    kept = states.detach()
    weights = head.detach()[: mix.vocab].to(kept.dtype)
    chunk = min(chunk, max(1, len(kept)))
    grads = [
        torch.zeros_like(item, dtype=torch.float32) if needed and item is not None else None
        for item, needed in zip((states, head, bias), needs_grad, strict=True)
    ]
    grad_states, grad_head, grad_bias = grads
    buffer = kept.new_empty(chunk, mix.vocab)
    sums = torch.zeros(2, device=kept.device)
    parts = [slice(start, min(start + chunk, len(kept))) for start in range(0, len(kept), chunk)]
    for part, here in zip(parts, output.chunks(parts, vocab=mix.vocab), strict=True):
        logits = torch.mm(kept[part], weights.T, out=buffer[: part.stop - part.start])
        if bias is not None:
            logits += bias.detach()[: mix.vocab]
        sums += _chunk_loss(logits, here, labels[part], mix=mix, learns=any(needs_grad))
        if grad_states is not None:
            _add(grad_states[part], logits, weights)
        if grad_head is not None:
            _add(grad_head[: mix.vocab], logits.T, kept[part])
        if grad_bias is not None:
            grad_bias[: mix.vocab] += logits.sum(dim=0, dtype=torch.float32)
    cast_back = [
        None if grad is None or item is None else grad.to(item.dtype)
        for grad, item in zip(grads, (states, head, bias), strict=True)
    ]
    return sums, cast_back


def _add(into: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == into.dtype:
        into.addmm_(left, right)
    elif left.is_cuda:
        # One pass over what may be the head's size, where a product of its own would take three.
        torch.addmm(into, left, right, out_dtype=into.dtype, out=into)
    else:
        into += left @ right


def _chunk_loss(
    logits: Tensor, output: TeacherOutput, labels: Tensor, *, mix: Mix, learns: bool
) -> LossSums:
    """The sums of a chunk; where it learns, its logits become their gradient."""
    on_gpu = logits.is_cuda
    rows = len(logits) if on_gpu else max(1, TILE_BYTES // (4 * mix.vocab))
    teacher_logits = output.full_logits()
    tile_loss = _tile_loss
    if (
        teacher_logits is not None
        and isinstance(mix.divergence, ForwardKl)
        and teacher_logits.shape[1] == logits.shape[1]
        and not on_gpu
        and logits.dtype == teacher_logits.dtype == torch.float32
    ):
        tile_loss = _tile_forward_kl
    elif on_gpu and mix.compiling == "auto" and output.compiles:
        tile_loss = _tile_loss_compiled
    found = torch.zeros(2, device=logits.device)
    for start in range(0, len(logits), rows):
        tile = slice(start, start + rows)
        found += tile_loss(logits[tile], output.rows(tile), labels[tile], mix, learns)
    return found


def _tile_loss_compiled(
    logits: Tensor, output: TeacherOutput, labels: Tensor, mix: Mix, learns: bool
) -> LossSums:
    """As `_tile_loss`, compiled: reads the logits few times, whatever the number of tokens."""
    # As numbers they would be part of the program: each step of a schedule would compile again.
    temperature, weight = torch.tensor([mix.temperature, mix.weight], device=logits.device)
    return _compiled()(logits, output, labels, mix.divergence, temperature, weight, learns)


@cache
def _compiled(backend: str = "inductor") -> Any:
    return torch.compile(_tile_loss_traced, dynamic=True, backend=backend)


def _mixed_sum(
    logits: Tensor,
    output: TeacherOutput,
    labels: Tensor,
    divergence: Divergence,
    temperature: Scalar,
    weight: Scalar,
) -> tuple[Tensor, LossSums]:
    """The weighted sum, and the two sums that it is made of."""
    logits = logits.float()
    kl = divergence.total(logits, output, temperature=temperature)
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return weight * kl + (1 - weight) * ce, torch.stack([kl, ce]).detach()


def _tile_loss(
    logits: Tensor, output: TeacherOutput, labels: Tensor, mix: Mix, learns: bool
) -> LossSums:
    """The sums of a tile, for any divergence; where it learns, logits become their gradient."""
    settings = mix.divergence, mix.temperature, mix.weight
    if not learns:
        return _mixed_sum(logits, output, labels, *settings)[1]
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        total, sums = _mixed_sum(leaf, output, labels, *settings)
        (gradient,) = torch.autograd.grad(total, leaf)
    logits.copy_(gradient)
    return sums


def _tile_loss_traced(
    logits: Tensor,
    output: TeacherOutput,
    labels: Tensor,
    divergence: Divergence,
    temperature: Tensor,
    weight: Tensor,
    learns: bool,
) -> LossSums:
    """As `_tile_loss`, in the form that a compiler follows."""
    if not learns:
        return _mixed_sum(logits, output, labels, divergence, temperature, weight)[1]
    differentiate = torch.func.grad_and_value(_mixed_sum, has_aux=True)
    gradient, (_, sums) = differentiate(logits, output, labels, divergence, temperature, weight)
    logits.copy_(gradient)
    return sums


def _tile_forward_kl(
    logits: Tensor, output: TeacherOutput, labels: Tensor, mix: Mix, learns: bool
) -> LossSums:
    """As `_tile_loss`, in closed form: T (q - p), and softmax less the label.

    Few passes, each over what a cache holds: one exp a side, and one more for the cross-entropy
    at temperatures other than 1 and 2.
    """
    temperature, weight, places = mix.temperature, mix.weight, labels.unsqueeze(1)
    teacher_logits = output.full_logits()
    assert teacher_logits is not None
    student, teacher = _shift(logits, temperature), _shift(teacher_logits, temperature)
    written = student.gather(1, places) * temperature
    # At T = 2, the usual one, exp(logit) is the square of exp(logit / T).
    plain = (student * temperature).exp_() if temperature not in (1, 2) else None
    p = teacher.exp()
    sums_p = p.sum(dim=-1, keepdim=True)
    gaps = torch.linalg.vecdot(p, teacher.sub_(student)).unsqueeze(1) / sums_p
    q = student.exp_()
    sums_q = q.sum(dim=-1, keepdim=True)
    kl = (gaps - sums_p.log() + sums_q.log()).sum() * temperature**2
    if plain is not None:
        normalizer = plain.sum(dim=-1, keepdim=True)
    else:
        normalizer = sums_q if temperature == 1 else torch.linalg.vecdot(q, q).unsqueeze(1)
    sums = torch.stack([kl, (normalizer.log() - written).sum()])
    if learns:
        scale, rest = temperature * weight, 1 - weight
        # At T = 1 both parts share the student's softmax.
        if temperature == 2:
            torch.mul(q, rest / normalizer, out=logits).add_(scale / sums_q).mul_(q)
        else:
            torch.mul(q, (1.0 if temperature == 1 else scale) / sums_q, out=logits)
        logits.sub_(p.mul_(scale / sums_p))
        if plain is not None and rest:
            logits.add_(plain.mul_(rest / normalizer))
        logits.scatter_add_(1, places, torch.full_like(written, -rest))
    return sums


def _shift(logits: Tensor, temperature: float) -> Tensor:
    """Logits below their row's largest, softened."""
    found = logits - logits.amax(dim=-1, keepdim=True)
    return found if temperature == 1 else found.div_(temperature)
