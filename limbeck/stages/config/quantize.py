"""Settings of the stage `quantize`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.registry import FORMATS, OBJECTIVES
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig, TeacherRef
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.known_inputs import refuse_teachers, refuse_training
from limbeck.evaluation.calibration import CalibrationConfig
from limbeck.models.gptq.config import Gptq
from limbeck.models.known import KnownInputs, KnownModel, Refusal, refusals
from limbeck.models.mixed_precision.config import MixedPrecision
from limbeck.models.smoothing.config import Smoothing
from limbeck.objectives.config import ObjectiveConfig
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.training.config import TrainingConfig

MANY_COLUMNS = 1 << 12
"""Of a row by which formats are compared: a multiple of every block."""


class Config(StageConfig):
    """Train a checkpoint while it rounds as its number format will, then convert it."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    processes: ClassVar[Literal["first", "all"]] = "all"
    stage: Literal["quantize"]
    checkpoint: CheckpointRef
    corpus: CorpusRef
    teacher: TeacherRef = ""
    """A checkpoint or its signals, where the objective needs one."""
    scheme: Annotated[QuantizedFormat, Choice(FORMATS, what="scheme")]
    mixed_precision: MixedPrecision | None = None
    """Done before training: which linear layers get more bits than the scheme has. null gives all
    the same; the scheme's `layers` names some by hand."""
    smoothing: Smoothing | Literal["default"] | None = "default"
    """Done before training; null leaves the channels as they are. `default` evens out those of
    int8. Fewer bits gain more by it in models with large outliers, and lose in others."""
    gptq: Gptq | Literal["default"] | None = "default"
    """Done after smoothing and before training, which starts from the chosen codes; null starts
    from the nearest ones. For int4, int2, and ternary of `least_squares`; `default` is for the
    first two."""
    annealing_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the training over which rounding sets in gradually: weights are
    w + lambda (Q(w) - w) with lambda from 0 to 1, then rounded wholly. 0 rounds from the first step
    on. Half of the training is usual for ternary weights."""
    objective: Annotated[ObjectiveConfig, Choice(OBJECTIVES, what="objective")]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    calibration: CalibrationConfig = CalibrationConfig()
    """How the checkpoint learns when to say that it does not know."""

    def resolve_smoothing(self) -> Smoothing | None:
        """What is done before training; None where nothing is."""
        if self.smoothing == "default":
            return Smoothing() if self.scheme.smooths_by_default else None
        return self.smoothing

    def resolve_gptq(self) -> Gptq | None:
        """How codes are chosen before training; None where they are the nearest."""
        if self.gptq == "default":
            pays = any(item.chooses_codes_by_default for item in self.possible_scheme.list_used())
            return Gptq() if pays else None
        return self.gptq

    @property
    def possible_scheme(self) -> QuantizedFormat:
        """The scheme with the formats that layers may get of it, for readers of all that it uses.

        Which layers those are is not known before the stage runs.
        """
        if self.mixed_precision is None:
            return self.scheme
        formats = {f"mixed_precision of {item.kind}": item for item in self.mixed_precision.formats}
        return self.scheme.model_copy(update={"layers": {**self.scheme.layers, **formats}})

    @model_validator(mode="after")
    def _check_mixed_precision(self) -> "Config":
        if self.mixed_precision is None:
            return self
        least = self.scheme.num_bits(rows=1, columns=MANY_COLUMNS)
        for item in self.mixed_precision.formats:
            if item.num_bits(rows=1, columns=MANY_COLUMNS) <= least:
                raise ValueError(
                    f"mixed_precision: {item.kind} takes no more bits than the scheme's "
                    f"{self.scheme.kind}, so that no layer would get it; name the smaller of both "
                    "as `scheme`"
                )
        return self

    @model_validator(mode="after")
    def _check_gptq(self) -> "Config":
        used = self.possible_scheme.list_used()
        if self.resolve_gptq() is not None and not any(item.keeps_grid for item in used):
            raise ValueError(
                f"gptq: {self.scheme.kind} finds the scale of chosen codes anew, so that they "
                "would not stay; it is for int4, int2, and ternary with `scale: least_squares`. "
                "Set `gptq: null`"
            )
        return self

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        self.objective.check_teacher(self.teacher)
        self.objective.check_packing(self.batching.packing)
        self.objective.check_early_stopping(self.training.early_stopping)
        return self

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Codes, teachers of another tokenizer, and layers that cannot be stored as codes."""
        packed = self.batching.packing != "none"
        yield from refuse_training(
            inputs, field="checkpoint", packed=packed, objective=self.objective
        )
        matched = self.objective.matched_features
        yield from refuse_teachers(inputs, needs=self.objective.needs(), matched=matched)
        start = inputs.start
        if start is None or start.codes is not None:
            return
        if start.description is None or self.scheme.layers or self.mixed_precision is not None:
            yield from refusals("checkpoint", lambda: self._try_preparing(start))

    def _try_preparing(self, start: KnownModel) -> None:
        from limbeck.models.checkpoints import build_without_weights
        from limbeck.models.mixed_precision.choice import check_bytes
        from limbeck.quantization.qat import prepare_for_qat

        model = build_without_weights(start.config)
        if self.mixed_precision is not None:
            # How many tokens a tokenizer of the recipe's own will have is not known.
            counts_tables = start.description is None
            check_bytes(
                model,
                number_format=self.scheme,
                config=self.mixed_precision,
                counts_tables=counts_tables,
            )
        prepare_for_qat(model, number_format=self.scheme)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.quantize import run

        return run(self, work=work)
