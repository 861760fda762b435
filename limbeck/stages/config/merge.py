"""Settings of the stage `merge`."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.known import KnownInputs, Refusal, refusals
from limbeck.models.saved_adapters import find_misfit, read_base


class Config(StageConfig):
    """Merge an adapter that peft has saved (LoRA) into the model that it was trained beside."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    stage: Literal["merge"]
    adapter: Path
    """The folder that holds `adapter_config.json`."""
    checkpoint: CheckpointRef
    """The model that the adapter was trained beside."""

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """A folder that holds no adapter, or one whose layers the model has not."""
        broken = list(refusals("adapter", partial(read_base, self.adapter)))
        yield from broken
        if not broken and inputs.start is not None:
            yield from refusals(
                "adapter", partial(find_misfit, self.adapter, model=inputs.start.layers)
            )

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.merge import run

        return run(self, work=work)
