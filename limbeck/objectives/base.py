"""The seam of every objective: its Config, what it is built from, and the loss that it returns.

Left out: the training loop, which alone divides sums by counts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import TypeVar

from limbeck.contracts.config import Config
from limbeck.models.batch import Batch
from limbeck.models.forward import Kept, LogitsForm

Forward = Callable[..., Kept]
BatchKind = Literal["records", "pairs", "rollouts"]
"""What an objective learns from: records, pairs of answers, or answers that the model samples."""
FeatureKind = Literal["hidden", "attention", "values"]
"""Inner states that can be matched with a teacher's."""


@dataclass(frozen=True)
class Loss:
    """A sum over kept tokens, and the number of tokens it is to be divided by."""

    sum: Float[Tensor, ""]
    count: int
    parts: dict[str, float] = field(default_factory=dict)
    """Sums of the single terms, for the training curve."""


@dataclass(frozen=True)
class Needs:
    """What an objective needs of a teacher."""

    temperature: float
    """The lowest at which targets are read."""
    max_temperature: float = 0.0
    """The highest one of a schedule; 0 where the temperature is constant."""
    logits_form: LogitsForm = "full"
    """How a live teacher returns logits, where its architecture allows a choice."""
    tokenizer: Literal["shared", "own"] = "shared"
    """Whether the teacher reads the batch's tokens, or the records' text by its own tokenizer."""


class Objective(nn.Module):
    """Base of every objective; it may hold parameters that training updates and then drops."""

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of one micro-batch."""
        raise NotImplementedError

    def before_step(self, *, progress: float) -> None:
        """Hear how much of the training is done, from 0 to 1, once an optimizer step."""

    def after_step(self, *, model: nn.Module) -> None:
        """What is to be done once an optimizer step; nothing by default."""


class Experience(NamedTuple):
    """What is known of the sampled tokens of a batch, in the order of its kept positions."""

    old_logs: Float[Tensor, " kept"]
    """Log-probability under the policy that sampled the token."""
    reference_logs: Float[Tensor, " kept"]
    advantages: Float[Tensor, " kept"]
    """Of the token's answer."""


@runtime_checkable
class ExperienceBuffer(Protocol):
    """Where the experience of a batch is kept."""

    def __call__(self, batch: Batch) -> Experience:
        """What is known of the batch's kept tokens."""
        ...


SomeTeacher = TypeVar("SomeTeacher", default=object)
"""Whatever the objectives of a package learn from: only these know its type."""


@dataclass(frozen=True)
class ObjectiveContext(Generic[SomeTeacher]):
    """What an objective is built from; a part that its Config does not need may be left out."""

    model: PreTrainedModel
    """The model in training."""
    teacher: SomeTeacher | None = None
    reference: nn.Module | None = None
    """The forward pass of the frozen model that training started from."""
    experience: ExperienceBuffer | None = None
    """Where the samples of a batch are found."""


class MatchedFeature(NamedTuple):
    """A student layer whose inner states are matched with a teacher layer's; 0 is not yet known."""

    kind: FeatureKind
    student_layer: int
    teacher_layer: int


class TeacherTerm(NamedTuple):
    """The teacher's part of a loss at one moment of training."""

    weight: float
    """Its share of the loss, 0 to 1; the rest is cross-entropy with the written answer."""
    temperature: float


class ObjectiveConfig(Config, ABC):
    """Base of every objective's Config: what the objective needs, what it can do, how it is built.

    The defaults describe an objective that learns from records, one a row, without a teacher.
    """

    batch_kind: ClassVar[BatchKind] = "records"
    packs_rows: ClassVar[bool] = False
    """Whether a row may hold several records, because the loss treats each token by itself."""
    supports_on_policy: ClassVar[bool] = False
    """Whether the objective learns from answers that the student samples in place of written
    ones."""

    kind: Any
    """The objective's name in the registry."""

    @abstractmethod
    def build(self, context: ObjectiveContext[Any]) -> Objective:
        """The objective, ready for the training loop."""

    def needs(self) -> Needs | None:
        """What the objective needs of a teacher; None where it needs no teacher."""
        return None

    @property
    def sequences_per_record(self) -> int:
        """Sequences that a step trains on for each record of its batch."""
        return 1

    @property
    def matched_features(self) -> tuple[MatchedFeature, ...]:
        """Inner states that are matched with the teacher's."""
        return ()

    def resolve_layers(
        self, context: ObjectiveContext[Any], *, batches: Sequence[Batch]
    ) -> "ObjectiveConfig":
        """The same with every matched layer by number; `batches` are examples to compare on."""
        return self

    def teacher_term(self, *, progress: float) -> TeacherTerm | None:
        """The teacher's part of the loss after a share of the training, from 0 to 1."""
        return None

    def with_teacher_weight(self, weight: float) -> "ObjectiveConfig":
        """The same without matched features, and with another share of the teacher."""
        return self

    def chunks_logits(self, *, vocab: int) -> bool:
        """Whether the loss is computed in chunks, so that not all logits are held at once."""
        return False

    def check_packing(self, packing: str) -> None:
        """Refuse packed rows where the loss takes a row for a record.

        Raises:
            ValueError: rows are packed, and the objective cannot tell their records apart.
        """
        if packing != "none" and not self.packs_rows:
            raise ValueError(
                f"batching.packing {packing!r}: objective {self.kind!r} reads one record a row; "
                "set packing: none"
            )

    def check_start(self, model: object) -> None:
        """Refuse a fresh model where the loss is measured against the model of the start.

        Raises:
            ValueError: the objective needs a teacher, or a trained model to start from.
        """
        if self.batch_kind == "records":
            self.check_teacher("")
        elif not isinstance(model, str):
            raise ValueError(
                f"objective {self.kind!r} compares every answer with the model that training "
                "starts from, so a fresh model gives nothing to compare with: fine-tune first, and "
                "name that checkpoint in `model`"
            )

    def check_teacher(self, teacher: str) -> None:
        """Refuse a missing teacher, and a teacher that the objective does not use.

        Raises:
            ValueError: the objective and the recipe entry disagree.
        """
        if self.batch_kind != "records":
            raise ValueError(
                f"objective {self.kind!r} learns from {self.batch_kind}, which only the stage "
                "`train` makes; use `next_token` or `soft_target` here"
            )
        needs_teacher = self.needs() is not None
        if needs_teacher and not teacher:
            raise ValueError(f"objective {self.kind!r} needs a `teacher`: name one")
        if teacher and not needs_teacher:
            raise ValueError(
                f"objective {self.kind!r} uses no teacher, yet `teacher: {teacher}` is given; "
                "remove it or use `soft_target`"
            )
