"""A mixture-of-experts teacher averaged over several samples of experts.

Experts that a router does not pick hold knowledge too: the teacher runs again with experts sampled
by the router's probabilities, and returns the mean of all its distributions (after the knowledge
augmentation of Kim et al. 2025, arXiv:2502.12947).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.targets import FullLogits, Targets, TeacherOutput
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.models.moe.layers import Routing
from limbeck.models.structure import find_layers, find_submodule

SEED = 0x9E3779B9
"""Mixed into each batch's own seed."""
# One for each thread: micro-batches may run side by side.
_sampling: ContextVar[torch.Generator | None] = ContextVar("sampling", default=None)


def find_gates(model: PreTrainedModel) -> list[tuple[int, nn.Module]]:
    """The routers of a model and their layers, counted from 0; empty for a dense model."""
    found = []
    for index, block in enumerate(find_layers(model)[1]):
        gate = find_submodule(block, "mlp.gate")
        if gate is not None and find_submodule(block, "mlp.experts") is not None:
            found.append((index, gate))
    return found


def read_gate(output: object) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights and picks of what a router returns, each one row a token.

    Raises:
        CheckpointError: it is neither of this project's form nor of transformers'.
    """
    if isinstance(output, Routing):
        return output.logits, output.weights, output.picked
    if isinstance(output, tuple) and len(output) == 3:
        logits, weights, picked = output
        if weights.shape == picked.shape and not picked.is_floating_point():
            return logits, weights, picked
    raise CheckpointError(
        f"a router returned {type(output).__name__}, expected logits, weights and picks; leave "
        "router_sampling out"
    )


@torch.no_grad()
def check_gates(model: PreTrainedModel) -> list[nn.Module]:
    """The routers of a model, of which each returns what sampling can replace.

    Raises:
        CheckpointError: it has none, or one that returns something else.
    """
    gates = [gate for _, gate in find_gates(model)]
    if not gates:
        raise CheckpointError(
            f"{type(model).__name__}: has no router (`mlp.gate` beside `mlp.experts`), so no "
            "experts are left out; remove router_sampling"
        )
    width = model.config.get_text_config().hidden_size
    for gate in gates:
        # What a router needs besides hidden states shows when the model itself calls it.
        with suppress(TypeError, RuntimeError, IndexError):
            read_gate(gate(next(gate.parameters()).new_zeros(1, width)))
    return gates


def sample_experts(
    logits: Float[Tensor, "tokens experts"], *, picks: int, generator: torch.Generator
) -> Int[Tensor, "tokens picks"]:
    """Experts sampled without replacement by softmax(logits): the largest after Gumbel noise.

    Kool et al. 2019, arXiv:1903.06059.
    """
    noise = torch.rand(logits.shape, generator=generator).to(logits.device).clamp(min=1e-20)
    return (logits.float() - (-noise.log()).log()).topk(picks, dim=-1).indices


def _resample(_: nn.Module, __: object, output: object) -> object:
    """A router's output with sampled experts, whose weights add up to those of the picked ones."""
    generator = _sampling.get()
    if generator is None:
        return None
    logits, weights, picked = read_gate(output)
    drawn = sample_experts(logits, picks=picked.shape[1], generator=generator)
    shares = logits.float().softmax(dim=-1).gather(1, drawn)
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-20)
    shares = (shares * weights.sum(dim=-1, keepdim=True)).to(weights.dtype)
    if isinstance(output, Routing):
        return output._replace(picked=drawn, weights=shares)
    return logits, shares, drawn


@contextmanager
def _use_generator(generator: torch.Generator) -> Iterator[None]:
    token = _sampling.set(generator)
    try:
        yield
    finally:
        _sampling.reset(token)


class RouterSamplingTeacher(Teacher):
    """The mean over several samples of experts; hidden states are of the router's own pass."""

    def __init__(
        self, teacher: Teacher, model: PreTrainedModel, *, num_samples: int, temperature: float
    ) -> None:
        """Hooks the routers of a live teacher's model until `close`.

        Raises:
            CheckpointError: the model has no router.
        """
        gates = check_gates(model)
        self.hooks = [gate.register_forward_hook(_resample) for gate in gates]
        self.teacher, self.num_samples, self.temperature = teacher, num_samples, temperature
        self.vocab, self.hidden_size = teacher.vocab, teacher.hidden_size
        self.layers = teacher.layers
        self.live_model: PreTrainedModel | None = model

    @override
    def require(self, *, layers: Sequence[int] = (), attention: Sequence[int] = ()) -> None:
        self.teacher.require(layers=layers, attention=attention)

    @override
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The mean distribution, exact at the objective's temperature; equal for equal batches."""
        targets = self.teacher(batch)
        generator = torch.Generator()
        # Of the batch alone: neither a resumed run nor another number of threads draws others.
        number = SEED + int(batch.input_ids.sum()) * 31 + len(batch.record_ids)
        generator.manual_seed(number % 2**31)
        total = self._log_probs(targets.output)
        for _ in range(self.num_samples):
            with _use_generator(generator):
                total = torch.logaddexp(total, self._log_probs(self.teacher(batch).output))
        return replace(targets, output=FullLogits(total * self.temperature))

    def _log_probs(self, output: TeacherOutput) -> Float[Tensor, "kept vocab"]:
        # In float32 before a head is multiplied: the mean of many passes is finer than each.
        return output.in_float32().log_probs(vocab=self.vocab, temperature=self.temperature)

    @override
    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.teacher.close()
