"""Average: the mean of several checkpoints' weights (Wortsman et al. 2022, arXiv:2203.05482)."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer


class Average(StageConfig):
    """Average checkpoints that were trained from the same start."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    stage: Literal["average"]
    checkpoints: Annotated[tuple[CheckpointRef, ...], Field(min_length=2)]

    @override
    def run(self, *, work: Work) -> dict[str, Any]:
        """Write the averaged checkpoint.

        Raises:
            CheckpointError: the checkpoints' weights differ in names or shapes.
        """
        folders = [artifact.path for artifact in work.inputs["checkpoints"]]
        model, *others = [load_model(folder) for folder in folders]
        weights = dict(model.named_parameters())  # a tied tensor once
        with torch.no_grad():
            for folder, other in zip(folders[1:], others, strict=True):
                found = dict(other.named_parameters())
                if [(n, x.shape) for n, x in found.items()] != [
                    (n, x.shape) for n, x in weights.items()
                ]:
                    raise CheckpointError(f"{folder}: its weights have other names or shapes")
                for name, tensor in found.items():
                    weights[name] += tensor
            for tensor in weights.values():
                tensor /= len(folders)
        save_checkpoint(model, tokenizer=load_tokenizer(folders[0]), folder=work.folder)
        return {"num_checkpoints": len(folders)}
