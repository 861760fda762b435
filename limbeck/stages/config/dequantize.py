"""Settings of the stage `dequantize`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.known import KnownInputs, Refusal, refusals

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Config(StageConfig):
    """Unpack a GGUF file into a checkpoint, held against the same file in llama.cpp."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    stage: Literal["dequantize"]
    file: Path
    """A GGUF file of an architecture that transformers reads, in any of llama.cpp's types."""
    tokenizer: CheckpointRef = ""
    """The folder or hub name of the published tokenizer, where the file's own cannot be rebuilt."""
    reference: Literal["llama_cpp", "none"] = "llama_cpp"
    """What the checkpoint is compared with, token by token; `none` trusts the reader."""

    def describe_model(self) -> "PreTrainedConfig":
        """The architecture of the model in the file, for plans.

        Raises:
            CheckpointError: the file is damaged, or transformers does not know its architecture.
        """
        from limbeck.models.gguf.dequantize import describe_gguf
        from limbeck.models.gguf.header import read_header

        return describe_gguf(read_header(self.file))

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Packages that are missing, a damaged file, an architecture that is not known."""
        from limbeck.stages.dequantize import check_packages

        missing = list(refusals("file", lambda: check_packages(self)))
        yield from missing or refusals("file", self.describe_model)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.dequantize import run

        return run(self, work=work)
