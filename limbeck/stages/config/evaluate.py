"""Settings of the stage `evaluate`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.answer_policy import UNKNOWN_ANSWERS
from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import NameIn
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.registry import FLOORS
from limbeck.contracts.stage import CorpusRef, ModelRef, RouterRef, StageConfig
from limbeck.evaluation.held_out_questions import QuestionSource
from limbeck.evaluation.profiling.profile import ProfileConfig


class Config(StageConfig):
    """Ask every model the same questions; the answers are the artifact, times are measured."""

    make: ClassVar[ArtifactKind] = "report"
    measured: ClassVar[tuple[str, ...]] = ("report.json", "report.md", "report.html")
    shows_references: ClassVar[bool] = True
    stage: Literal["evaluate"]
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    """Rows of the table, in this order; a row bears its artifact's name."""
    corpus: CorpusRef
    questions: QuestionSource = "auto"
    """What is asked. `pack`: the questions that the corpus holds, of its pack and of sources that
    hold some. `test`: the records of its test split, which no model was trained on: questions with
    their answers, those about images only where every model reads images. Each is scored as recall
    is (the answer equals the record's, or is a list of the same items from F1 0.8 where the source
    knows that it is a list), and by what tells more where answers are free text: token F1, chrF,
    ROUGE-L, and the log-likelihood of the record's answer. `auto`: `pack` where the corpus holds
    questions, `test` otherwise."""
    teacher: str = ""
    """Which of `models` the ratios are against; empty: the first."""
    language: Annotated[str, Field(pattern="^([a-z]{2,3})?$")] = ""
    """Of the answers (ISO 639-1, such as `de`): where a comma is the decimal mark, 1.000,5 is read
    as 1000.5. Empty: a point is."""
    router: RouterRef = ""
    """Of tiers that all are among `models`: its accuracy against the share of questions that the
    largest tier answers, over the headline tasks."""
    headline_tasks: tuple[str, ...] = ()
    """Tasks that are pooled into the accuracy, the others are only shown; empty: those that the
    corpus's pack names, or else all that hold questions."""
    floors: tuple[Annotated[str, NameIn(FLOORS, "floor")], ...] = tuple(FLOORS)
    """Rows of what needs no model, made from the training records: the most frequent answer, the
    answer of the most similar question, the same among records about the same names where the
    corpus marks names, and a linear classifier where answers are few (of pixels for images)."""
    max_questions: PositiveInt = 400
    """Of each task, drawn by a hash of their ids."""
    max_new_tokens: PositiveInt = 64
    batch_size: PositiveInt = 64
    """Questions answered as one batch where only the answers count."""
    num_threads: PositiveInt | Literal["auto"] = 1
    """CPU threads while answering. One gives the same answers to the last digit whatever runs
    beside; `auto` goes by the work of a batch and the free cores. The profile has its own."""
    unknown_answers: tuple[str, ...] = UNKNOWN_ANSWERS
    """Answers that say that the model does not know."""
    profile: ProfileConfig = ProfileConfig()

    @model_validator(mode="after")
    def _check_names(self) -> "Config":
        if self.teacher and self.teacher not in self.models:
            raise ValueError(
                f"teacher {self.teacher!r} is not among the models {list(self.models)}: add it"
            )
        if len(set(self.models)) != len(self.models):
            raise ValueError(f"models {list(self.models)} name one model twice: remove one")
        if len(set(self.floors)) != len(self.floors):
            raise ValueError(f"floors {list(self.floors)} name one floor twice: remove one")
        return self

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.evaluate import run

        return run(self, work=work)
