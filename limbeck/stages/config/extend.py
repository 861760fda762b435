"""Settings of the stage `extend`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.config import EncoderConfig


class Config(StageConfig):
    """Give a text checkpoint an untrained image encoder."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    stage: Literal["extend"]
    checkpoint: CheckpointRef
    encoder: EncoderConfig = EncoderConfig()
    seed: int = 0
    """Of the encoder's fresh weights."""

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.extend import run

        return run(self, work=work)
