"""How many groups each layer keeps, and the config of what is left.

Every layer keeps equally many. Left out: widths that differ by layer; a transformers config holds
one number for all layers, so such a model would need code of ours to be loaded.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import Decoder, GroupKind
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.sizing.parameters import NUM_EXPERTS, PICKED_EXPERTS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    Cuttable = TypeVar("Cuttable", bound=PreTrainedConfig | DecoderSizes)


def count_kept(num_groups: int, *, ratio: float, multiple: int, kind: GroupKind) -> int:
    """How many of a layer's groups stay: the multiple nearest to the share, at least one multiple.

    A tie keeps more. The share that is cut in the end may therefore differ from the requested one.

    Raises:
        CheckpointError: rounding leaves nothing to cut.
    """
    assert 0 <= ratio < 1
    target = num_groups * (1 - ratio)
    # Rounded first: 10 * (1 - 0.2) / 8 must not fall below its tie by a rounding error.
    kept = max(1, math.floor(round(target / multiple, 9) + 0.5)) * multiple
    if ratio > 0 and kept >= num_groups:
        raise CheckpointError(
            f"a layer has {num_groups} {kind}; cutting {ratio:.3g} of them leaves {target:.4g}, "
            f"which rounds to {kept} at multiples of {multiple}, so nothing would be cut; cut a "
            "larger share or lower the multiple"
        )
    return min(kept, num_groups)


def count_groups(shape: "Decoder | SizedConfig") -> dict[GroupKind, int]:
    """How many groups of each kind a layer, or the model, has by its description or config."""
    heads = getattr(shape, "num_key_value_heads", None)
    width = getattr(shape, "intermediate_size", None)
    return {
        "channels": width if isinstance(width, int) else 0,  # Gemma 3n has one for each layer
        "heads": heads or getattr(shape, "num_attention_heads", None) or 0,
        "experts": next(filter(None, (getattr(shape, name, 0) for name in NUM_EXPERTS)), 0),
        "layers": shape.num_hidden_layers,
        "hidden": shape.hidden_size,
    }


def count_left(
    shape: "Decoder | SizedConfig", *, shares: Mapping[GroupKind, tuple[float, int]]
) -> dict[GroupKind, int]:
    """How many groups stay of each kind that is cut; `shares` are ratios and their multiples.

    Raises:
        CheckpointError: rounding leaves nothing to cut.
    """
    groups = count_groups(shape)
    return {
        kind: count_kept(groups[kind], ratio=ratio, multiple=multiple, kind=kind)
        for kind, (ratio, multiple) in shares.items()
        if ratio
    }


def describe_cut(config: "Cuttable", *, num_kept: Mapping[GroupKind, int]) -> "Cuttable":
    """The config of a model whose every layer keeps so many groups of each kind."""
    whole = copy.deepcopy(config)
    text = whole.get_text_config()
    for kind, count in num_kept.items():
        if kind == "channels":
            text.intermediate_size = count
        elif kind == "experts":
            _keep_experts(text, num=count)
        elif kind == "layers":
            keep_settings(text, layers=range(count))
        elif kind == "hidden":
            _fix_head_dim(text)
            text.hidden_size = count
        elif kind == "heads":
            queries = text.num_attention_heads
            groups_before = getattr(text, "num_key_value_heads", None) or queries
            _fix_head_dim(text)
            text.num_attention_heads = queries // groups_before * count
            text.num_key_value_heads = count
    return whole


def check_picks(config: "Decoder | SizedConfig", *, num_experts: int) -> None:
    """Refuse fewer experts than a token picks.

    Raises:
        CheckpointError: it picks more.
    """
    picks = next(filter(None, (getattr(config, name, 0) for name in PICKED_EXPERTS)), 1)
    if num_experts < picks:
        raise CheckpointError(
            f"{num_experts} of a layer's experts would stay and a token picks {picks}; cut a "
            "smaller share"
        )


def _keep_experts(config: SizedConfig, *, num: int) -> None:
    """State the number of experts, by each name that the architecture has for it."""
    check_picks(config, num_experts=num)
    for name in NUM_EXPERTS:
        if getattr(config, name, 0):
            setattr(config, name, num)


def keep_settings(config: SizedConfig, *, layers: Sequence[int]) -> None:
    """Describe so many layers; settings of single layers, as their windows, go with them."""
    settings = config.to_dict()
    if "scale_depth" in settings:  # MiniCPM divides it by the root of the number of layers
        ratio = len(layers) / config.num_hidden_layers
        setattr(config, "scale_depth", settings["scale_depth"] * math.sqrt(ratio))  # noqa: B010
    for name, value in settings.items():
        if name == "mlp_only_layers" and value:  # the numbers of the layers without experts
            setattr(config, name, [new for new, old in enumerate(layers) if old in value])
        elif isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(config, name, [value[index] for index in layers])
    config.num_hidden_layers = len(layers)


def _fix_head_dim(config: SizedConfig) -> None:
    """State the width of a head, which a config may derive from what is about to change."""
    heads = config.num_attention_heads
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
