"""Cross-entropy with smoothed labels (Szegedy et al. 2016, sec. 7, arXiv:1512.00567)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from limbeck.models.batch import Batch
from limbeck.objectives.base import Forward, Loss, Objective, ObjectiveContext
from limbeck.objectives.config import ObjectiveConfig


class SmoothedNextToken(ObjectiveConfig):
    """Next-token cross-entropy against labels mixed with the uniform distribution."""

    packs_rows: ClassVar[bool] = True

    kind: Literal["smoothed"] = "smoothed"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the uniform distribution."""

    @override
    def build(self, context: ObjectiveContext) -> Objective:
        return SmoothedObjective(self.smoothing)


class SmoothedObjective(Objective):
    """Computes `SmoothedNextToken`."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    @override
    def forward(self, forward: Forward, batch: Batch) -> Loss:
        targets = batch.targets
        logits = forward(batch).logits.float()
        total = functional.cross_entropy(
            logits, targets, label_smoothing=self.smoothing, reduction="sum"
        )
        return Loss(total, targets.numel(), {"smoothed": total.item()})
