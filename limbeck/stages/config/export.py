"""Settings of the stage `export`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.parity import Tolerance
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.evaluation.calibration import CalibrationConfig
from limbeck.models.known import KnownInputs, Refusal
from limbeck.runtimes import RuntimeName
from limbeck.runtimes.known_inputs import refuse_export


class Config(StageConfig):
    """Write a bundle, and refuse it when it answers differently from its checkpoint."""

    make: ClassVar[ArtifactKind] = "bundle"
    stage: Literal["export"]
    checkpoint: CheckpointRef
    corpus: CorpusRef = ""
    """Where the compared prompts come from (without it they are random tokens), and the questions
    that calibrate the bundle."""
    runtime: RuntimeName = "onnx"
    """What the bundle is written for and answers in."""
    weights: str = "format"
    """How the runtime stores matrices of floats: `format` as the checkpoint's number format says. A
    GGUF file can have them as F32 (its `format`), F16, BF16, Q8_0, Q6_K, Q4_K_M, Q4_1 or Q4_0,
    and ternary weights as TQ2_0 (their `format`) or TQ1_0, which is smaller and slower."""
    num_prompts: Annotated[int, Field(ge=1)] = 16
    """Prompts that bundle and checkpoint are compared on."""
    num_answers: Annotated[int, Field(ge=0)] = 0
    """Questions of the corpus that bundle and checkpoint answer greedily, to report how many
    answers are equal; 0 asks none."""
    tolerance: Tolerance | Literal["format"] = "format"
    """How far the bundle may differ from its checkpoint; `format` is what its number format
    states, or the runtime for its `weights`. Raise it only if the task's accuracy holds."""
    calibration: CalibrationConfig = CalibrationConfig()
    """How the bundle learns when to say that it does not know; needs the corpus. Without one it
    keeps what the checkpoint has learnt."""

    @model_validator(mode="after")
    def _check_corpus(self) -> "Config":
        if self.num_answers and not self.corpus:
            raise ValueError("num_answers are questions of a corpus: name one as `corpus`")
        return self

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Architectures and number formats that the runtime does not compute."""
        for model in inputs.named("checkpoint"):
            yield from refuse_export(model, runtime=self.runtime, weights=self.weights)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.export import run

        return run(self, work=work)
