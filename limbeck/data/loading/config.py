"""Which records training sees, and how many at a time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from limbeck.contracts.config import Config

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int

    from limbeck.data.loading.tokenized import RecordFlags


class BatchingConfig(Config):
    """Which records training sees, and how many at a time."""

    per_device_train_batch_size: Annotated[int, Field(gt=0)] = 32
    """Records of one micro-batch, on average."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 4
    """Micro-batches whose gradients make one optimizer step; records of like length share one."""
    select: Literal["all", "questions", "text", "preferences"] = "questions"
    """Questions with answers, plain text, both, or questions with a rejected answer too."""
    images: Literal["all", "with", "without"] = "all"
    """Records with images, without, or both."""
    loss_on: Literal["answer", "all"] = "answer"
    """Tokens that carry a loss; an image's never do."""
    max_length: Annotated[int, Field(gt=1)] = 512
    """Longer records are cut at their end."""
    packing: Literal["none", "full"] = "none"
    """`full` lays several records into one row: next to no padding, whatever their lengths.
    Attention ends at each record, so the loss is the same. Text only."""
    repeats: Mapping[str, Annotated[int, Field(gt=0)]] = {}
    """How often one pass shows the records of a source, by its name; 1 where it is not named."""
    seed: int = 0
    """Order of the records."""

    def select_records(self, flags: "RecordFlags") -> "Int[np.ndarray, ' records']":
        """The records that such batches hold, ascending."""
        chosen = {
            "all": flags.has_question | True,
            "questions": flags.has_question,
            "text": ~flags.has_question,
            "preferences": flags.has_question & flags.has_rejected,
        }[self.select]
        if self.images != "all":
            chosen = chosen & (flags.has_images == (self.images == "with"))
        return chosen.nonzero()[0]
