"""Settings of the stage `convert`."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.config import MoeArchitecture
from limbeck.models.known import KnownInputs, Refusal, refusals


class Config(StageConfig):
    """Write a mixture as stock transformers reads it, or a published one as our mixture."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    stage: Literal["convert"]
    checkpoint: CheckpointRef
    architecture: MoeArchitecture
    """What comes out: `qwen3_moe` for stock transformers, `limbeck_moe` for the way back."""
    balance_bias: Literal["refuse", "drop"] = "refuse"
    """What to do with balance biases, for which Qwen3-MoE has no place: they decide over picks, so
    a model that drops them answers a little otherwise until it is trained on without them."""

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Architectures between which nothing is converted."""
        from limbeck.models.moe.convert_qwen3 import describe_converted

        for model in inputs.named("checkpoint"):
            yield from refusals(
                "checkpoint",
                lambda item=model: describe_converted(item.config, architecture=self.architecture),
            )

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.convert import run

        return run(self, work=work)
