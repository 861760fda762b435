"""The charts of a search that the report of models has no use for, as SVG text.

Colours are the page's CSS variables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.evaluation.report.charts import Bilingual, svg, text
from limbeck.evaluation.report.number_format import Number

WIDTH, HEIGHT = 1040, 380
SIDE, TOP, BOTTOM = 90, 46, 24
ROW, LABELS, BAR_WIDTH = 30, 300, 1040


@dataclass(frozen=True)
class Scale:
    """One vertical axis: where a value lies, 0 (bottom) to 1, and what stands at its ticks."""

    title: Bilingual
    places: Mapping[object, float] | None
    """Of labels; nothing for numbers."""
    low: Number = 0.0
    high: Number = 1.0
    log: bool = False

    def share(self, value: object) -> float:
        """Where a value lies."""
        if self.places is not None:
            return self.places[value]
        assert isinstance(value, int | float)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Shares with what is written there."""
        if self.places is not None:
            return [(share, shorten(str(name))) for name, share in self.places.items()]
        if self.high == self.low:
            return [(0.5, f"{self.low:.3g}")]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(self.share(item), f"{item:.3g}") for item in (self.low, middle, self.high)]


def shorten(words: str, *, most: int = 22) -> str:
    """A text that fits beside an axis."""
    return words if len(words) <= most else words[: most - 1] + "…"


def spread(labels: Sequence[object]) -> dict[object, float]:
    """Labels evenly from bottom to top."""
    last = max(1, len(labels) - 1)
    return {name: index / last for index, name in enumerate(labels)}


def parallel(
    rows: Sequence[Sequence[object]],
    *,
    scales: Sequence[Scale],
    shares: Sequence[float],
    best: int,
) -> str:
    """A line for each trial through all axes, darker the better (`shares`), the best one marked."""
    step = (WIDTH - 2 * SIDE) / max(1, len(scales) - 1)
    parts = []
    order = sorted(range(len(rows)), key=lambda index: (index == best, shares[index]))
    for index in order:
        points = "L".join(
            f"{SIDE + place * step:.1f} {_down(scale.share(value)):.1f}"
            for place, (scale, value) in enumerate(zip(scales, rows[index], strict=True))
        )
        colour, width = ("--accent", 3.0) if index == best else ("--heat", 1.4)
        parts.append(
            f'<path fill="none" style="stroke:var({colour});stroke-width:{width};'
            f'opacity:{1.0 if index == best else 0.15 + 0.6 * shares[index]:.2f}" d="M{points}"/>'
        )
    for place, scale in enumerate(scales):
        x = SIDE + place * step
        parts.append(f'<path class="axis" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(
            text(scale.title, x=x, y=TOP - 14 - 14 * (place % 2), anchor="middle", style="name")
        )
        for share, words in scale.ticks():
            label = Bilingual(words, words)
            parts.append(text(label, x=x + 5, y=_down(share) + 4, style="tick"))
    title = "parallel coordinates of the trials"
    return svg(parts, width=WIDTH, height=HEIGHT, title=title)


def bars(shares: Mapping[str, float]) -> str:
    """One bar for each name, the longest first."""
    parts = []
    longest = max([*shares.values(), 1e-9])
    room = BAR_WIDTH - LABELS - 80
    for index, (name, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1])):
        y = index * ROW
        width = max(1.0, room * share / longest)
        label = Bilingual(name, name)
        parts.append(text(label, x=LABELS - 10, y=y + 19, anchor="end", style="name"))
        parts.append(
            f'<rect x="{LABELS}" y="{y + 6}" width="{width:.1f}" height="18" rx="3" '
            'style="fill:var(--heat)"/>'
        )
        value = f"{share:.0%}"
        parts.append(text(Bilingual(value, value), x=LABELS + width + 8, y=y + 19, style="tick"))
    title = "importance of each setting"
    return svg(parts, width=BAR_WIDTH, height=ROW * len(shares), title=title)


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
