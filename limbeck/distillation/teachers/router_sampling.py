"""A teacher's opinion with other experts than its router's first choice.

Experts that a router leaves out know something too: the teacher runs again with experts drawn by
the router's probabilities, and says the mean of all its distributions (after the knowledge
augmentation of Kim et al. 2025, arXiv:2502.12947).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.moe.layers import Routing
from limbeck.models.structure import find_layers
from limbeck.models.targets import (
    FeatureTeacher,
    FullLogits,
    HiddenAndHead,
    Targets,
    TeacherDistribution,
)

SEED = 0x9E3779B9
"""Mixed into each batch's own seed."""
# One for each thread: micro-batches may be judged side by side.
_drawing: ContextVar[torch.Generator | None] = ContextVar("drawing", default=None)


class RouterSampling(Config):
    """How often a live mixture of experts is asked again, with other experts."""

    num_samples: Annotated[int, Field(ge=0)] = 0
    """Passes with drawn experts beside the router's own; all count alike. Each costs as much as the
    teacher itself; 0 leaves the teacher as it is."""


def find_gates(model: PreTrainedModel) -> list[tuple[int, nn.Module]]:
    """The routers of a model and their layers, counted from 0; empty for a dense model."""
    found = []
    for index, block in enumerate(find_layers(model)[1]):
        gate = getattr(getattr(block, "mlp", None), "gate", None)
        if isinstance(gate, nn.Module) and hasattr(block.get_submodule("mlp"), "experts"):
            found.append((index, gate))
    return found


def read_gate(said: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights and picks of what a router returns, each one row a token.

    Raises:
        CheckpointError: it is neither of this project's form nor of transformers'.
    """
    if isinstance(said, Routing):
        return said.logits, said.weights, said.picked
    if isinstance(said, tuple) and len(said) == 3:
        logits, weights, picked = said
        if weights.shape == picked.shape and not picked.is_floating_point():
            return logits, weights, picked
    raise CheckpointError(
        f"a router returned {type(said).__name__}, expected logits, weights and picks; leave "
        "router_sampling out"
    )


def draw_experts(
    logits: Float[Tensor, "tokens experts"], *, picks: int, generator: torch.Generator
) -> Int[Tensor, "tokens picks"]:
    """Experts drawn without replacement by softmax(logits): the largest after Gumbel noise.

    Kool et al. 2019, arXiv:1903.06059.
    """
    noise = torch.rand(logits.shape, generator=generator).to(logits.device).clamp(min=1e-20)
    return (logits.float() - (-noise.log()).log()).topk(picks, dim=-1).indices


def _redraw(_: nn.Module, __: Any, said: Any) -> Any:
    """What a router says, with drawn experts that weigh together as much as the picked ones did."""
    generator = _drawing.get()
    if generator is None:
        return None
    logits, weights, picked = read_gate(said)
    drawn = draw_experts(logits, picks=picked.shape[1], generator=generator)
    shares = logits.float().softmax(dim=-1).gather(1, drawn)
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-20)
    shares = (shares * weights.sum(dim=-1, keepdim=True)).to(weights.dtype)
    if isinstance(said, Routing):
        return said._replace(picked=drawn, weights=shares)
    return said[0], shares, drawn


@contextmanager
def _drawn(generator: torch.Generator) -> Iterator[None]:
    token = _drawing.set(generator)
    try:
        yield
    finally:
        _drawing.reset(token)


class RouterSamplingTeacher:
    """A live teacher that says the mean of several draws of experts; hidden states are its own."""

    def __init__(
        self, teacher: FeatureTeacher, model: PreTrainedModel, *, draws: int, temperature: float
    ) -> None:
        gates = find_gates(model)
        if not gates:
            raise CheckpointError(
                f"{type(model).__name__}: has no router (`mlp.gate` beside `mlp.experts`), so no "
                "experts are left out; remove router_sampling"
            )
        for _, gate in gates:
            gate.register_forward_hook(_redraw)
        self.teacher, self.draws, self.temperature = teacher, draws, temperature
        self.vocab, self.hidden, self.known = teacher.vocab, teacher.hidden, teacher.known

    def ask(self, *, layers: Sequence[int], attended: Sequence[int]) -> None:
        """From now on give these layers, of the router's own pass."""
        self.teacher.ask(layers=layers, attended=attended)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The mean distribution, exact at the temperature asked for; the same for a same batch."""
        targets = self.teacher(batch)
        generator = torch.Generator()
        # Of the batch alone: neither a resumed run nor another number of threads draws others.
        generator.manual_seed((SEED + int(batch.input_ids.sum()) * 31 + len(batch.rows)) % 2**31)
        total = self._soften(targets.said)
        for _ in range(self.draws):
            with _drawn(generator):
                total = torch.logaddexp(total, self._soften(self.teacher(batch).said))
        return replace(targets, said=FullLogits(total * self.temperature))

    def _soften(self, said: TeacherDistribution) -> Float[Tensor, "kept vocab"]:
        if isinstance(said, HiddenAndHead):
            logits = said.states.float() @ said.head.float().T
        else:
            assert isinstance(said, FullLogits)
            logits = said.logits.float()
        logits = logits[:, : self.vocab]
        return (logits / self.temperature).log_softmax(dim=-1)
