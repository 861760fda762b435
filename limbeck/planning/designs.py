"""Designs for a target: a start as it is or pruned, or a fresh decoder of a family.

A design is a config's sizes and how it is made. Widths are multiples of 256, which every number
format has whole blocks of. Left out: which of two designs of equal size answers better.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import GroupKind
from limbeck.models.decoder_sizes import DecoderSizes, DenseFamily, SizedConfig
from limbeck.pruning.shapes import count_groups, count_kept, describe_cut
from limbeck.sizing.shape_counts import ShapeCounts, count_parameters, count_shapes

WIDTH = 256
"""Every width is a multiple: ternary blocks have as many weights."""
WIDEST = 8192
HEAD_WIDTHS = (128, 64)
"""The first by which the width is a multiple of four heads, so that four query heads share a
key-value head."""
SHARING_HEADS = 4
FEED_FORWARD = 3
"""Channels of a feed-forward block over those of the residual stream, as in Qwen3."""
SLENDER, STOUT = 16, 128
"""Residual channels for each layer, at least and at most: 19 in the smallest MobileLLM, 128 in
Llama 3 8B."""
LEAST_LAYERS, MOST_LAYERS, USUAL_LAYERS = 4, 64, 32
"""Of designs of nearly equal size the one with the most usual depth is taken: Qwen3 has 28 to 36
layers from 0.6 B to 8 B, MobileLLM 30 to 54, Llama 3 16 to 32."""
NEARLY_EQUAL = 0.97
"""Parameters over the most: designs above count as equally large."""
STEPS = tuple(step / 20 for step in range(1, 11))
"""Shares that are cut, 5 to 50 %."""
CHANNELS_ALONE = 0.35
"""Up to here feed-forward channels alone are cut, which costs least (Minitron, Muralidharan et al.
2024, arXiv:2407.14679); beyond it heads and width go with them."""
APART = 0.15
"""How far the share of channels may be from that of heads and width."""
CUT_FIELDS: Mapping[GroupKind, str] = {
    "channels": "channels_ratio",
    "heads": "heads_ratio",
    "hidden": "hidden_ratio",
}
"""Fields of the stage `prune`."""


@dataclass(frozen=True)
class Design:
    """A decoder that could be made."""

    sizes: SizedConfig
    made_by: str
    """"as it is", "fresh", or "pruned"."""
    settings: Mapping[str, float]
    """Of the stage `prune`; empty where it is not pruned."""

    @property
    def shape(self) -> Mapping[str, int]:
        """The widths that it is known by."""
        text = self.sizes.get_text_config()
        return {
            "hidden_size": text.hidden_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": count_groups(text)["heads"],
            "head_dim": getattr(text, "head_dim", None)
            or text.hidden_size // text.num_attention_heads,
            "intermediate_size": text.intermediate_size,
        }

    @functools.cached_property
    def shapes(self) -> ShapeCounts:
        """Its parameters by shape."""
        return count_shapes(self.sizes)

    @functools.cached_property
    def parameters(self) -> int:
        """How many it has."""
        return count_parameters(self.shapes)


def list_cuts(start: SizedConfig) -> Sequence[Design]:
    """A start as it is, then those with less and less left of it."""
    widths = count_groups(start.get_text_config())
    cuts: dict[tuple[int, ...], Design] = {}
    for width in (0.0, *STEPS):
        for channels in STEPS:
            if channels > CHANNELS_ALONE if not width else abs(channels - width) > APART:
                continue
            ratios: dict[GroupKind, float] = {"channels": channels}
            if width:
                ratios |= {"heads": width, "hidden": width}
            for design in _cut(start, widths, ratios):
                cuts.setdefault(tuple(design.shape.values()), design)
    whole = Design(start, "as it is", {})
    return [whole, *sorted(cuts.values(), key=lambda design: -design.parameters)]


def _cut(
    start: SizedConfig, widths: Mapping[GroupKind, int], ratios: Mapping[GroupKind, float]
) -> Iterator[Design]:
    """The design, where anything is cut; a part that is too small to be cut stays."""
    multiple = WIDTH if widths["hidden"] % WIDTH == 0 and widths["hidden"] > WIDTH else 32
    kept: dict[GroupKind, int] = {}
    settings: dict[str, float] = {}
    for kind, ratio in ratios.items():
        try:
            kept[kind] = count_kept(
                widths[kind], ratio=ratio, multiple=1 if kind == "heads" else multiple, kind=kind
            )
        except CheckpointError:
            continue
        settings[CUT_FIELDS[kind]] = ratio
    if kept:
        cut = describe_cut(start, num_kept=kept)
        yield Design(cut, "pruned", settings | {"multiple": multiple})


@functools.cache
def list_fresh(family: DenseFamily, vocab: int, context_tokens: int) -> Sequence[Design]:
    """Decoders of every width and depth, the smallest first."""
    found = []
    for hidden in range(WIDTH, WIDEST + 1, WIDTH):
        width = next(item for item in HEAD_WIDTHS if hidden % (item * SHARING_HEADS) == 0)
        heads = hidden // width
        for layers in range(
            max(LEAST_LAYERS, math.ceil(hidden / STOUT)),
            max(LEAST_LAYERS, min(MOST_LAYERS, hidden // SLENDER)) + 1,
        ):
            sizes = DecoderSizes(
                model_type=family,
                vocab_size=vocab,
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads // SHARING_HEADS,
                head_dim=width,
                max_position_embeddings=context_tokens,
                tie_word_embeddings=True,
                intermediate_size=FEED_FORWARD * hidden,
            )
            found.append(Design(sizes, "fresh", {}))
    return sorted(found, key=lambda design: design.parameters)


def choose_usual(designs: Sequence[Design]) -> Design:
    """Of those nearly as large as the largest, the one of the most usual proportions."""
    most = max(design.parameters for design in designs)
    large = [design for design in designs if design.parameters >= NEARLY_EQUAL * most]
    return min(large, key=_distance)


def choose_nearest(designs: Sequence[Design], *, parameters: int) -> Design:
    """Of those of about so many parameters, the one of the most usual proportions."""
    misses = [abs(math.log(design.parameters / parameters)) for design in designs]
    close = min(misses) + (1 - NEARLY_EQUAL)
    near = [item for item, miss in zip(designs, misses, strict=True) if miss <= close]
    return min(near, key=_distance)


def _distance(design: Design) -> float:
    return abs(math.log(design.shape["num_hidden_layers"] / USUAL_LAYERS))
