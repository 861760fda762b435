"""Settings of an objective: the seam's Config, and those that learn without a teacher."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import NonNegativeFloat, NonNegativeInt, RatioBelowOne
from limbeck.models.config import LogitsForm

if TYPE_CHECKING:
    from limbeck.models.batch import Batch
    from limbeck.models.vision.modeling import LimbeckVisionForCausalLM
    from limbeck.objectives.base import Objective, ObjectiveContext

BatchKind = Literal["records", "pairs", "rollouts"]
"""What an objective learns from: records, pairs of answers, or answers that the model samples."""


FeatureKind = Literal["hidden", "attention", "values"]
"""Inner states that can be matched with a teacher's."""


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

    trains_likelihood: ClassVar[bool] = True
    """Whether a lower loss makes written answers likelier, so that their likelihood can tell when
    training is over."""

    kind: str
    """The objective's name in the registry."""

    @abstractmethod
    def build(self, context: "ObjectiveContext") -> "Objective":
        """The objective, ready for the training loop."""

    def needs(self) -> Needs | None:
        """What the objective needs of a teacher; None where it needs no teacher."""
        return None

    @property
    def domain_need(self) -> str:
        """What of it needs the domain of the corpus's pack; empty: nothing."""
        return ""

    @property
    def sequences_per_record(self) -> int:
        """Sequences that a step trains on for each record of its batch."""
        return 1

    @property
    def matched_features(self) -> tuple[MatchedFeature, ...]:
        """Inner states that are matched with the teacher's."""
        return ()

    def resolve_layers(
        self, context: "ObjectiveContext", *, batches: "Sequence[Batch]"
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

    def check_early_stopping(self, early_stopping: object) -> None:
        """Refuse a stop by the validation loss where training does not lower that loss.

        Raises:
            ValueError: `training.early_stopping` is set, and the objective learns something else.
        """
        if early_stopping is not None and not self.trains_likelihood:
            raise ValueError(
                f"training.early_stopping measures the likelihood of written answers, which "
                f"objective {self.kind!r} does not raise; remove it and set max_steps"
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


class Balance(Config):
    """How hard training pushes toward evenly used experts."""

    bias_rate: NonNegativeFloat = 0.001
    """Step of the balance bias per optimizer step (arXiv:2408.15664)."""
    loss_weight: NonNegativeFloat = 0.001
    """Weight of the balance loss."""
    z_weight: NonNegativeFloat = 0.0001
    """Weight of the z-loss, which keeps the gate's logits small (arXiv:2202.08906)."""


def _expect_encoder(context: "ObjectiveContext", objective: str) -> "LimbeckVisionForCausalLM":
    from limbeck.models.vision.modeling import LimbeckVisionForCausalLM

    model = context.model
    if not isinstance(model, LimbeckVisionForCausalLM):
        raise CheckpointError(
            f"objective {objective!r} trains an image encoder, {type(model).__name__} has none; "
            "give it one with an `extend` entry"
        )
    return model


class NextToken(ObjectiveConfig):
    """Cross-entropy on the tokens that carry a label; sparse models also keep experts balanced."""

    packs_rows: ClassVar[bool] = True

    kind: Literal["next_token"]
    balance: Balance = Balance()
    """Read by mixtures of experts; a dense model has nothing to balance."""
    vocab: NonNegativeInt = 0
    """Real tokens of a padded vocabulary; logits from this id on are ignored. 0 keeps all."""
    label_smoothing: RatioBelowOne = 0.0
    """Share of the target that is spread evenly over all tokens, as in torch's `cross_entropy`;
    the curve's `ce` stays that of the written answers."""
    trained: Literal["all", "encoder"] = "all"
    """What learns: the model, or its image encoder with its projector, while the language model
    stays as it is (Tsimpoukelli et al. 2021, arXiv:2106.13884)."""

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        """The objective; freezes what is not to be trained.

        Raises:
            CheckpointError: only the image encoder is to be trained, and the model has none.
        """
        from limbeck.objectives.next_token import NextTokenObjective

        if self.trained == "encoder":
            _expect_encoder(context, self.kind).language_model.requires_grad_(False)
        return NextTokenObjective(self)


class Contrastive(ObjectiveConfig):
    """Pairwise sigmoid loss between an image and the answers of its micro-batch."""

    trains_likelihood: ClassVar[bool] = False

    kind: Literal["contrastive"]
    trained: Literal["encoder", "all"] = "encoder"
    """What learns: the image encoder with its projector, or the language model too."""
    scale: float = 10.0
    """Factor of the cosine at the start; learnt."""
    bias: float = -10.0
    """Offset at the start; learnt. The paper's is for batches of thousands of different texts; with
    two texts, 0 is even."""

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        """The objective; freezes what is not to be trained.

        Raises:
            CheckpointError: the model has no image encoder.
        """
        from limbeck.objectives.contrastive import ContrastiveObjective

        model = _expect_encoder(context, self.kind)
        if self.trained == "encoder":
            model.language_model.requires_grad_(False)
        text = model.config.get_text_config()
        return ContrastiveObjective(
            self, hidden=text.hidden_size, layer=text.num_hidden_layers, pad=text.pad_token_id or 0
        )
