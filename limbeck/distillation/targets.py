"""What a teacher returns for a batch: its distribution over next tokens, in one of several forms.

A form is one final subclass of `TeacherOutput`; losses, ensembles and diagnostics call its methods
and never ask which form it is.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import override

from limbeck.contracts.errors import TrainingError
from limbeck.distillation.losses.top_k_log_probs import Scalar, top_k_log_probs
from limbeck.models.attention_capture import Heads
from limbeck.models.batch import Batch
from limbeck.models.forward import Kept

SomeOutput = TypeVar("SomeOutput", bound="TeacherOutput")
LogProbs = Float[Tensor, "*kept outcomes"]
Terms = Callable[[LogProbs, LogProbs], LogProbs]
"""From the student's and the teacher's log-probabilities to what each outcome adds."""
NO_MASS = -60.0
"""Log-probability below which an outcome of both sides is left out."""


@dataclass(frozen=True, eq=False)
class TeacherOutput(ABC):
    """A teacher's distribution over next tokens at each kept position.

    A subclass is a frozen dataclass whose tensors have one row for each kept position.
    """

    any_temperature: ClassVar[bool] = True
    """Whether the distribution is known at every temperature, or at the one read alone."""
    is_sample: ClassVar[bool] = False
    """Whether sums over the tokens held only estimate sums over the vocabulary."""

    compiles: ClassVar[bool] = True
    """Whether `divergence_terms` can be compiled; not where it has a backward pass of its own."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, by name."""
        return {name: item for name, item in vars(self).items() if torch.is_tensor(item)}

    def to(self: SomeOutput, device: torch.device) -> SomeOutput:
        """The same on a device."""
        return self._with({name: item.to(device) for name, item in self.tensors().items()})

    def in_float32(self: SomeOutput) -> SomeOutput:
        """The same with every floating-point tensor in float32."""
        return self._with(
            {
                name: item.float() if item.is_floating_point() else item
                for name, item in self.tensors().items()
            }
        )

    def rows(self: SomeOutput, index: slice | Tensor) -> SomeOutput:
        """The distribution at some of the positions."""
        return self._with({name: item[index] for name, item in self.tensors().items()})

    def cat(self: SomeOutput, others: Sequence["TeacherOutput"]) -> SomeOutput | None:
        """This and the others one after the other; None where they differ in form or width."""
        mine = self.tensors()
        theirs = [item.tensors() for item in others]
        for other, tensors in zip(others, theirs, strict=True):
            shapes = {name: item.shape[1:] for name, item in tensors.items()}
            if type(other) is not type(self) or any(
                shapes[name] != item.shape[1:] for name, item in mine.items()
            ):
                return None
        return self._with(
            {
                name: torch.cat([item, *(each[name] for each in theirs)])
                for name, item in mine.items()
            }
        )

    def chunks(self, parts: Sequence[slice], *, vocab: int) -> Iterator["TeacherOutput"]:
        """The rows of each part in turn; a yielded output may be overwritten by the next one.

        Logits that are computed on the way are of the first `vocab` tokens.
        """
        for part in parts:
            yield self.rows(part)

    def full_logits(self) -> Float[Tensor, "kept vocab"] | None:
        """The logits of every token; None where only some tokens are held."""
        return None

    @abstractmethod
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        """Log-probabilities of the first `vocab` tokens at a temperature.

        Where only some tokens are held, the mass of all others is spread evenly over them.
        """

    @abstractmethod
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        """What each outcome of this form adds to a divergence from the student."""

    def _with(self: SomeOutput, tensors: dict[str, Tensor]) -> SomeOutput:
        return replace(self, **tensors)


@dataclass(frozen=True, eq=False)
class FullLogits(TeacherOutput):
    """The logits of every token."""

    logits: Float[Tensor, "kept vocab"]

    @override
    def full_logits(self) -> Float[Tensor, "kept vocab"]:
        return self.logits

    @override
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        return (self.logits[:, :vocab].float() / temperature).log_softmax(dim=-1)

    @override
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        logits = self.logits[:, : student_logits.shape[1]]
        teacher = (logits.float() / temperature).log_softmax(dim=-1)
        student = (student_logits.float() / temperature).log_softmax(dim=-1)
        return terms(student, teacher)


@dataclass(frozen=True, eq=False)
class HiddenAndHead(TeacherOutput):
    """Full logits as `hidden_states @ head.T`, so that a large vocabulary need not be held."""

    hidden_states: Float[Tensor, "kept teacher_hidden"]
    """After the final norm."""
    head: Float[Tensor, "vocab teacher_hidden"]

    @override
    def rows(self, index: slice | Tensor) -> "HiddenAndHead":
        return HiddenAndHead(self.hidden_states[index], self.head)

    @override
    def cat(self, others: Sequence[TeacherOutput]) -> "HiddenAndHead | None":
        return None if others else self

    @override
    def chunks(self, parts: Sequence[slice], *, vocab: int) -> Iterator[TeacherOutput]:
        head = self.head[:vocab].to(self.hidden_states.dtype)
        longest = max((part.stop - part.start for part in parts), default=0)
        buffer = self.hidden_states.new_empty(longest, len(head))
        for part in parts:
            out = buffer[: part.stop - part.start]
            yield FullLogits(torch.mm(self.hidden_states[part], head.T, out=out))

    @override
    def full_logits(self) -> Float[Tensor, "kept vocab"]:
        return self.hidden_states @ self.head.T

    @override
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        return FullLogits(self.full_logits()).log_probs(vocab=vocab, temperature=temperature)

    @override
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        return FullLogits(self.full_logits()).divergence_terms(
            terms, student_logits=student_logits, temperature=temperature
        )


class HeldTokens(NamedTuple):
    """The single tokens of a sparse distribution, in float64."""

    log_probs: Float[Tensor, "kept tokens"]
    weights: Float[Tensor, "kept tokens"]
    """What f(token) counts in the sum that stands for the sum of p * f."""
    mask: Bool[Tensor, "kept tokens"]
    """False for padding."""
    rest: Float[Tensor, " kept"] | None
    """Log-probability of all other tokens together; None where the weights account for them."""


class SparseOutput(TeacherOutput):
    """A form that holds some tokens of each position, read at one temperature."""

    any_temperature: ClassVar[bool] = False
    ids: Int[Tensor, "kept tokens"]
    temperature: float
    """The temperature that the output was read at."""

    @abstractmethod
    def held_tokens(self) -> HeldTokens:
        """The tokens of `ids` at the output's own temperature."""


@dataclass(frozen=True, eq=False)
class TopK(SparseOutput):
    """The likeliest tokens, and the mass of all others."""

    compiles: ClassVar[bool] = False
    logits: Float[Tensor, "kept tokens"]
    """Up to a constant per position."""
    ids: Int[Tensor, "kept tokens"]
    tail: Float[Tensor, " kept"]
    """Log of the summed exp(logit / temperature) of all other tokens."""
    temperature: float

    @override
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        others = max(1, vocab - self.ids.shape[1])
        each = (self.tail.float() - math.log(others)) * (self.temperature / temperature)
        logits = each.unsqueeze(1).expand(-1, vocab).clone()
        logits.scatter_(1, self.ids, self.logits.float() / temperature)
        return torch.log_softmax(logits, dim=-1)

    @override
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        """Terms over the top tokens and one bucket that holds all others.

        Their sum is a lower bound of the full divergence where that is an f-divergence, equal to it
        when the bucket is empty.
        """
        student = top_k_log_probs(student_logits, self.ids, temperature=temperature)
        tail = self.tail.float().unsqueeze(1)
        teacher = torch.cat([self.logits.float() / temperature, tail], dim=1).log_softmax(dim=-1)
        held = (teacher > NO_MASS) | (student > NO_MASS)
        # What the teacher rules out costs a mode-seeking student much, yet not infinitely much.
        return torch.where(held, terms(student, teacher.clamp(min=-80.0)), 0.0)

    @override
    def held_tokens(self) -> HeldTokens:
        mass = [self.logits.double() / self.temperature, self.tail.double()[:, None]]
        logs = torch.cat(mass, dim=1).log_softmax(dim=-1)
        mask = torch.ones_like(self.ids, dtype=torch.bool)
        return HeldTokens(logs[:, :-1], logs[:, :-1].exp(), mask, rest=logs[:, -1])


@dataclass(frozen=True, eq=False)
class ImportanceSampled(SparseOutput):
    """Tokens drawn by importance: sum of weight * f(token) estimates sum of p * f, unbiased.

    Both p and the estimate are at the output's temperature (RS-KD, arXiv:2503.16870).
    """

    is_sample: ClassVar[bool] = True
    ids: Int[Tensor, "kept tokens"]
    weights: Float[Tensor, "kept tokens"]
    """0 for places that hold no token."""
    logs: Float[Tensor, "kept tokens"]
    """Log p of each token."""
    temperature: float

    @override
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        held = torch.where(self.weights > 0, self.logs.float(), -torch.inf)
        nothing = torch.full((len(held), vocab), -torch.inf, device=held.device)
        logs = nothing.scatter_reduce(1, self.ids, held, "amax")
        drawn = logs > -torch.inf
        rest = (1 - logs.exp().sum(dim=-1)).clamp(min=1e-9).log()
        others = (~drawn).sum(dim=-1).clamp(min=1).log()
        logs = torch.where(drawn, logs, (rest - others).unsqueeze(1))
        return (logs * self.temperature / temperature).log_softmax(dim=-1)

    @override
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        """Terms over the drawn tokens, weighted: their sum is an unbiased estimate of the
        divergence, where each term reads its own outcome alone."""
        student = (student_logits.float() / temperature).log_softmax(dim=-1).gather(1, self.ids)
        logs = self.logs.float()
        drawn = self.weights > 0
        # Padding has no weight; its logarithm may be anything.
        logs = torch.where(drawn, logs, 0.0)
        factors = torch.where(drawn, self.weights.float() * (-logs).exp(), 0.0)
        return factors * terms(student, logs)

    @override
    def held_tokens(self) -> HeldTokens:
        return HeldTokens(self.logs.double(), self.weights.double(), self.weights > 0, rest=None)


def live_output(output: Kept) -> FullLogits | HiddenAndHead:
    """The distribution of a model's forward pass."""
    if output.factored is not None:
        return HiddenAndHead(*output.factored)
    return FullLogits(output.logits)


class TokenAlignment(NamedTuple):
    """Spans of text that student and teacher both have, and outcomes that both can express.

    A teacher's targets that come with an alignment are of its own tokens, at its own positions.
    """

    student_spans: Int[Tensor, " kept"]
    """Of each kept position's next token, ascending; -1 where the teacher has no such span."""
    teacher_spans: Int[Tensor, " teacher_kept"]
    """The same spans, at the teacher's kept positions."""
    teacher_tokens: Int[Tensor, " teacher_kept"]
    """The next token at each of the teacher's kept positions."""
    student_outcomes: Int[Tensor, " student_vocab"]
    """The outcome that each token counts as."""
    teacher_outcomes: Int[Tensor, " teacher_vocab"]
    num_outcomes: int
    """The last outcome collects every token without a counterpart in the other vocabulary."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What a teacher returns at each position that carries a loss."""

    output: TeacherOutput
    hidden_states: tuple[Float[Tensor, "kept teacher_hidden"], ...] = ()
    """Of the required layers."""
    alignment: TokenAlignment | None = None
    """Where the teacher has another tokenizer: `output` is then of its own tokens and positions."""
    attention: tuple[Heads, ...] = ()
    """Queries, keys and values of the layers whose attention is required."""


def check_targets(total: float, *, targets: Targets, batch: Batch) -> None:
    """Raise if a loss is not finite because the teacher produced NaN or inf.

    A student that is not finite is reported by the training loop.

    Raises:
        TrainingError: a tensor of the targets is not finite.
    """
    if math.isfinite(total):
        return
    tensors = targets.output.tensors()
    tensors |= {
        f"hidden {place}": item for place, item in enumerate(targets.hidden_states, start=1)
    }
    for name, tensor in tensors.items():
        wrong = ~torch.isfinite(tensor)
        if wrong.any():
            raise TrainingError(
                f"the teacher's {name!r} hold {int(wrong.sum())} of {wrong.numel()} values that "
                f"are not finite, the first {float(tensor[wrong][0])!r}, in the batch of "
                f"records {batch.record_ids.tolist()[:8]}: check the teacher's weights and its "
                "precision, or record its signals again"
            )
