"""A student's divergence and cross-entropy from its hidden states, without its logits as a whole.

Logits of a few tokens at a time are made in a buffer that is used again, judged a few rows at a
time, and turned in place into their gradient, from which those of states and head follow at once:
the backward pass computes nothing, and the peak hangs on the chunk and not on the tokens. The
idea is Liger's (arXiv:2410.10989); the divergences are those of `divergences.py`. Left out: where
states and targets come from.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.distillation.losses.divergences import Divergence, ForwardKl
from limbeck.distillation.losses.top_k_log_probs import Number
from limbeck.models.batch import IGNORED
from limbeck.models.targets import FullLogits, HiddenAndHead, TeacherDistribution, TopK
from limbeck.objectives.base import Loss

CHUNK_BYTES = 160 * 2**20
"""Of a buffer of logits, at most; student and live teacher have one each."""
TILE_BYTES = 2**22
"""Of the rows judged at once on a CPU: what they need in between stays in its cache."""
Figures = Float[Tensor, "2"]
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
    """`auto` compiles what judges a chunk where it runs on a GPU."""

    @property
    def weights(self) -> Float[Tensor, "2"]:
        """Of both figures."""
        return torch.tensor([self.weight, 1 - self.weight])


def chunked_loss(
    *,
    states: Float[Tensor, "tokens hidden"],
    head: Float[Tensor, "rows hidden"],
    labels: Int[Tensor, " tokens"],
    said: TeacherDistribution,
    mix: Mix,
    bias: Float[Tensor, " rows"] | None = None,
    chunk_tokens: int = 0,
) -> Loss:
    """w T^2 D + (1 - w) CE over the tokens with a label, as of logits `states @ head.T + bias`.

    Tokens whose label is `IGNORED` carry neither. `chunk_tokens` is how many share the buffer; 0
    takes as many as `CHUNK_BYTES` hold. Sums and softmax are float32.

    Raises:
        TrainingError: drawn tokens cannot estimate this divergence.
    """
    mix.divergence.check(said)
    carried = labels != IGNORED
    if not carried.all():
        states, labels, said = states[carried], labels[carried], _take(said, carried)
    chunk = chunk_tokens or max(1, CHUNK_BYTES // (4 * mix.vocab))
    # Of equal size, so that none is too small to be fast.
    chunk = max(1, math.ceil(len(labels) / max(1, math.ceil(len(labels) / chunk))))
    learns = torch.is_grad_enabled() and any(
        item is not None and item.requires_grad for item in (states, head, bias)
    )
    total, figures = cast(
        tuple[Tensor, Tensor],
        _Chunked.apply(states, head, bias, labels, said, mix, chunk, learns),
    )
    kl, ce = figures.tolist()
    return Loss(total, labels.numel(), {"kl": kl, "ce": ce})


def _take(said: TeacherDistribution, rows: Tensor | slice) -> Any:
    """What was said of some tokens."""
    if isinstance(said, HiddenAndHead):
        return HiddenAndHead(said.states[rows], said.head)
    return type(said)(*(part[rows] for part in said))


class _Chunked(torch.autograd.Function):
    """The mixed sum; gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        said: TeacherDistribution,
        mix: Mix,
        chunk: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(states.device.type, enabled=False):
            wanted = [needed and learns for needed in ctx.needs_input_grad[:3]]
            figures, gradients = _pass_over(
                states, head, bias, labels=labels, said=said, mix=mix, chunk=chunk, wanted=wanted
            )
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(figures)
        return figures @ mix.weights.to(figures), figures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
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
    said: TeacherDistribution,
    mix: Mix,
    chunk: int,
    wanted: list[bool],
) -> tuple[Figures, list[Tensor | None]]:
    """Figures, and those gradients of states, head and bias that are wanted."""
    kept = states.detach()
    weights = head.detach()[: mix.vocab].to(kept.dtype)
    chunk = min(chunk, max(1, len(kept)))
    grads = [
        torch.zeros_like(item, dtype=torch.float32) if want and item is not None else None
        for item, want in zip((states, head, bias), wanted, strict=True)
    ]
    grad_states, grad_head, grad_bias = grads
    buffer = kept.new_empty(chunk, mix.vocab)
    other = None
    if isinstance(said, HiddenAndHead):
        rows = min(mix.vocab, len(said.head))
        other = said.states.new_empty(chunk, rows)
    figures = torch.zeros(2, device=kept.device)
    for start in range(0, len(kept), chunk):
        part = slice(start, min(start + chunk, len(kept)))
        count = part.stop - part.start
        logits = torch.mm(kept[part], weights.T, out=buffer[:count])
        if bias is not None:
            logits += bias.detach()[: mix.vocab]
        here = _take(said, part)
        if other is not None:
            assert isinstance(said, HiddenAndHead)
            theirs = said.head[: other.shape[1]].to(other.dtype)
            here = FullLogits(torch.mm(said.states[part], theirs.T, out=other[:count]))
        figures += _judge_rows(logits, here, labels[part], mix=mix, learns=any(wanted))
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
    return figures, cast_back


def _add(into: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == into.dtype:
        into.addmm_(left, right)
    elif left.is_cuda:
        # One pass over what may be the head's size, where a product of its own would take three.
        torch.addmm(into, left, right, out_dtype=into.dtype, out=into)
    else:
        into += left @ right


def _judge_rows(
    logits: Tensor, said: TeacherDistribution, labels: Tensor, *, mix: Mix, learns: bool
) -> Figures:
    """Figures of a chunk; where it learns, its logits become their gradient."""
    on_gpu = logits.is_cuda
    rows = len(logits) if on_gpu else max(1, TILE_BYTES // (4 * mix.vocab))
    judge = _judge
    if (
        isinstance(said, FullLogits)
        and isinstance(mix.divergence, ForwardKl)
        and said.logits.shape[1] == logits.shape[1]
        and not on_gpu
        and logits.dtype == said.logits.dtype == torch.float32
    ):
        judge = _judge_forward_kl
    elif on_gpu and mix.compiling == "auto" and not isinstance(said, TopK):
        judge = _judge_compiled
    found = torch.zeros(2, device=logits.device)
    for start in range(0, len(logits), rows):
        tile = slice(start, start + rows)
        found += judge(logits[tile], _take(said, tile), labels[tile], mix, learns)
    return found


def _judge_compiled(
    logits: Tensor, said: TeacherDistribution, labels: Tensor, mix: Mix, learns: bool
) -> Figures:
    """As `_judge`, compiled: reads the logits few times, whatever the number of tokens."""
    # As numbers they would be part of the program: each step of a schedule would compile again.
    temperature, weight = torch.tensor([mix.temperature, mix.weight], device=logits.device)
    return _compiled()(logits, said, labels, mix.divergence, temperature, weight, learns)


@cache
def _compiled(backend: str = "inductor") -> Any:
    return torch.compile(_judge_traced, dynamic=True, backend=backend)


def _figure(
    logits: Tensor,
    said: TeacherDistribution,
    labels: Tensor,
    divergence: Divergence,
    temperature: Number,
    weight: Number,
) -> tuple[Tensor, Figures]:
    """The mixed sum, and its figures."""
    logits = logits.float()
    kl = divergence.total(logits, said, temperature=temperature)
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return weight * kl + (1 - weight) * ce, torch.stack([kl, ce]).detach()


def _judge(
    logits: Tensor, said: TeacherDistribution, labels: Tensor, mix: Mix, learns: bool
) -> Figures:
    """Figures; where it learns, logits become the mix's gradient; any divergence and targets."""
    settings = mix.divergence, mix.temperature, mix.weight
    if not learns:
        return _figure(logits, said, labels, *settings)[1]
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        total, figures = _figure(leaf, said, labels, *settings)
        (gradient,) = torch.autograd.grad(total, leaf)
    logits.copy_(gradient)
    return figures


def _judge_traced(
    logits: Tensor,
    said: TeacherDistribution,
    labels: Tensor,
    divergence: Divergence,
    temperature: Tensor,
    weight: Tensor,
    learns: bool,
) -> Figures:
    """As `_judge`, in the form that a compiler follows; top tokens have a backward of their own."""
    if not learns:
        return _figure(logits, said, labels, divergence, temperature, weight)[1]
    differentiate = torch.func.grad_and_value(_figure, has_aux=True)
    gradient, (_, figures) = differentiate(logits, said, labels, divergence, temperature, weight)
    logits.copy_(gradient)
    return figures


def _judge_forward_kl(
    logits: Tensor, said: FullLogits, labels: Tensor, mix: Mix, learns: bool
) -> Figures:
    """As `_judge`, in closed form: T (q - p), and softmax less the label.

    Few passes, each over what a cache holds: one exp a side, and one more for the cross-entropy
    at temperatures other than 1 and 2.
    """
    temperature, weight, places = mix.temperature, mix.weight, labels.unsqueeze(1)
    student, teacher = _shift(logits, temperature), _shift(said.logits, temperature)
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
        sums = plain.sum(dim=-1, keepdim=True)
    else:
        sums = sums_q if temperature == 1 else torch.linalg.vecdot(q, q).unsqueeze(1)
    figures = torch.stack([kl, (sums.log() - written).sum()])
    if learns:
        scale, rest = temperature * weight, 1 - weight
        # At T = 1 both parts share the student's softmax.
        if temperature == 2:
            torch.mul(q, rest / sums, out=logits).add_(scale / sums_q).mul_(q)
        else:
            torch.mul(q, (1.0 if temperature == 1 else scale) / sums_q, out=logits)
        logits.sub_(p.mul_(scale / sums_p))
        if plain is not None and rest:
            logits.add_(plain.mul_(rest / sums))
        logits.scatter_add_(1, places, torch.full_like(written, -rest))
    return figures


def _shift(logits: Tensor, temperature: float) -> Tensor:
    """Logits below their row's largest, softened."""
    found = logits - logits.amax(dim=-1, keepdim=True)
    return found if temperature == 1 else found.div_(temperature)
