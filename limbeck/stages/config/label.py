"""Settings of the stage `label`."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.fields import PositiveInt, Precision, Ratio
from limbeck.contracts.registry import LABEL_FORMS, QUESTION_CHOICES, REWARDS
from limbeck.contracts.stage import CorpusRef, ModelRef, StageConfig
from limbeck.distillation.endpoint.config import EndpointConfig
from limbeck.distillation.label_forms.config import Answers, LabelForm
from limbeck.distillation.question_choice.config import All, QuestionChoice
from limbeck.env.threads import NumThreads
from limbeck.models.known import KnownInputs, Refusal, refusals
from limbeck.reinforcement.rewards import name_domain_rewards


class Config(StageConfig):
    """Let a teacher answer a corpus's questions: those without an answer, or else all of training.

    The teacher is a model behind an OpenAI-compatible server, or one in a folder (checkpoint or
    bundle).
    """

    make: ClassVar[ArtifactKind] = "corpus"
    stage: Literal["label"]
    corpus: CorpusRef
    endpoint: EndpointConfig | None = None
    """A teacher behind a server."""
    teacher: ModelRef = ""
    """A teacher in a folder, instead of one behind a server."""
    write: Annotated[LabelForm, Choice(LABEL_FORMS, what="form of labels")] = Answers(
        kind="answers"
    )
    """What to write: answers (one of each question, or several), preferences or logprobs; a teacher
    in a folder writes answers."""
    choose: Annotated[QuestionChoice, Choice(QUESTION_CHOICES, what="choice of questions")] = All(
        kind="all"
    )
    """Which of the questions without an answer are asked; the others stay without."""
    student: ModelRef = ""
    """The model in a folder whose confidence says what `choose: {kind: uncertain}` asks, instead of
    a linear model of the labelled records."""
    system: str = ""
    """System prompt of the records that have none of their own; empty: none."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 512
    """Longest answer, in the teacher's tokens; one that is cut off there counts as failed."""
    min_confidence_ratio: Ratio = 0.0
    """An answer of a teacher in a folder is taken from this confidence on: the geometric mean of
    its tokens' probabilities. The questions of all others stay without an answer."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Answers that a teacher in a folder writes at once."""
    num_threads: NumThreads = "auto"
    """CPU threads of a teacher in a folder."""
    precision: Precision = "float32"
    """In what a checkpoint computes; bfloat16 is several times as fast on processors with units for
    it (AMX), takes half the memory, and answers a few questions differently."""
    num_processes: PositiveInt = 1
    """Processes that each hold a teacher in a folder, with `num_threads` of its own: where batches
    are too small for a second thread to help, answers come as many times as fast as cores are free.
    The answers are the same."""
    failed: Literal["leave_out", "keep"] = "leave_out"
    """What becomes of records that got no usable answer: they go, or keep the answer they had."""
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    """A larger share of failed records stops the run, so that the cause can be mended first."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        if (self.endpoint is None) == (not self.teacher):
            raise ValueError("name one teacher: `endpoint`, a server, or `teacher`, a folder")
        if self.teacher and self.write.folder_answers is None:
            raise ValueError(
                f"write: a teacher in a folder writes answers, not {self.write.kind}; its "
                "distributions come from the stage `record`, or from training beside it"
            )
        if self.endpoint is not None:
            self.write.check_endpoint(self.endpoint)
        if self.endpoint is not None and self.min_confidence_ratio:
            raise ValueError(
                "min_confidence_ratio: a server's answers come without a confidence; leave it out, "
                "or name a `teacher`"
            )
        return self

    @model_validator(mode="after")
    def _check_choice(self) -> "Config":
        if self.student and not self.choose.needs_margins:
            raise ValueError(
                f"student: choose {self.choose.kind!r} does not ask how sure a model is; set "
                "choose.kind: uncertain, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_rewards(self) -> "Config":
        for name in self.write.reward_weights:
            if name not in REWARDS:
                raise ValueError(str(UnknownNameError(name, known=REWARDS, what="reward")))
        return self

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Teachers and students that compute in one precision only."""
        for field in ("teacher", "student"):
            for model in inputs.named(field):
                yield from refusals(field, partial(model.check_precision, self.precision))

    @model_validator(mode="after")
    def _check_precision(self) -> "Config":
        if self.endpoint is not None and self.precision != "float32":
            raise ValueError("precision: a server chooses its own; leave it out")
        return self

    @property
    @override
    def domain_need(self) -> str:
        return name_domain_rewards(self.write.reward_weights)

    @property
    @override
    def bare_questions_need(self) -> str:
        return f"choose {self.choose.kind!r}" if self.choose.is_limited else ""

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.label import run

        return run(self, work=work)
