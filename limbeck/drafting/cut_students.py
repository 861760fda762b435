"""A student cut out of its teacher: it knows the teacher's language before its first step.

A fresh student of a published teacher would learn to write from the records alone, of which a user
has hundreds; three passes over these leave it where it answers nothing.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from limbeck.contracts.json_data import JsonObject
from limbeck.models.config import GroupKind
from limbeck.models.known import KnownModel
from limbeck.pruning.config import Reconstruction
from limbeck.pruning.known_inputs import refuse_cut

LAYERS_RATIO, CHANNELS_RATIO, MULTIPLE = 0.5, 0.33, 8
SHARES: Mapping[GroupKind, tuple[float, int]] = {
    "layers": (LAYERS_RATIO, 1),
    "channels": (CHANNELS_RATIO, MULTIPLE),
}
TOKENS_PER_COLUMN = 4
"""Of a linear layer, on which its fit is measured at least."""


def can_be_cut(folder: Path, *, config: JsonObject) -> bool:
    """Whether a student can be cut out of the teacher in a folder, by its `config.json`.

    Mixtures are left whole: half the layers of one are no small model.
    """
    from limbeck.models.checkpoints import open_config  # noqa: PLC0415  (torch)

    known = KnownModel(str(folder), None, partial(open_config, folder), folder=folder)
    return "quantization_config" not in config and not any(refuse_cut(known, shares=SHARES))


def count_fit_records(config: JsonObject, *, mean_tokens: float, num_records: int) -> int:
    """How many records the fit of the cut student reads: enough tokens for its widest layer."""
    text = config.get("text_config", config)
    columns = (1 - CHANNELS_RATIO) * int(text.get("intermediate_size", 0))
    needed = math.ceil(TOKENS_PER_COLUMN * columns / max(mean_tokens, 1.0))
    return min(max(Reconstruction().num_records, needed), num_records)
