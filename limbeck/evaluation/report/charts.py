"""Charts as SVG text, drawn by hand so that the page needs no script, font or network.

Colours are CSS variables of the page (`--s1` to `--s8`), so one drawing serves light and dark; a
label in two languages is two `<text>` elements of which the page shows one.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from limbeck.evaluation.report.number_format import Number

NUM_COLOURS = 8
WIDTH, HEIGHT = 520, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 16, 50
LABEL_GAP = 14
CURVE_POINTS = 240


@dataclass(frozen=True)
class Bilingual:
    """One text in both languages of the page."""

    zh: str
    en: str


@dataclass(frozen=True)
class Point:
    """A model in a scatter chart, with the interval of its height."""

    label: Bilingual
    x: Number
    y: Number
    low: Number
    high: Number
    colour: int
    is_reference: bool = False
    """Drawn as a hollow diamond: a published figure, not a measurement."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart: its range, and how a tick is written."""

    title: Bilingual
    low: Number
    high: Number
    is_log: bool
    write: Callable[[Number], str]

    def share(self, value: Number) -> Number:
        """Where a value lies between the ends, 0 to 1."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return (value - low) / (high - low)

    def ticks(self) -> list[Number]:
        """Round values between the ends: at most eight."""
        return _log_ticks(self.low, self.high) if self.is_log else _even_ticks(self.low, self.high)


def fit_axis(
    values: Sequence[Number],
    *,
    title: Bilingual,
    write: Callable[[Number], str],
    scale: str = "linear",
    limits: tuple[Number, Number] = (-math.inf, math.inf),
) -> Axis:
    """An axis that holds the values with a margin, within limits."""
    low, high = min(values), max(values)
    if scale == "log":
        margin = max((high / low) ** 0.12, 1.25)
        return Axis(title, low / margin, high * margin, True, write)
    margin = max((high - low) * 0.12, 0.02 * max(abs(high), 0.01))
    low, high = max(low - margin, limits[0]), min(high + margin, limits[1])
    return Axis(title, low, high, False, write)


def _even_ticks(low: Number, high: Number) -> list[Number]:
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: Number, high: Number) -> list[Number]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 8:
            break
    return inside


def text(label: Bilingual, *, x: Number, y: Number, anchor: str = "start", style: str = "") -> str:
    """A label at a place, once in each language."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    if label.zh == label.en:
        return f'<text {place} class="{style}">{escape(label.en)}</text>'
    return "".join(
        f'<text {place} class="{style} {language}">{escape(words)}</text>'
        for language, words in (("zh", label.zh), ("en", label.en))
    )


def svg(parts: Iterable[str], *, width: Number, height: Number, title: str, style: str = "") -> str:
    """The drawing that the parts make, scaled to the page; `title` is what a screen reader says."""
    css_class = f'class="{style}" ' if style else ""
    return (
        f'<svg {css_class}viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _frame(body: str, *, x: Axis, y: Axis, title: str) -> str:
    """Axes, grid and titles around what is drawn between them."""
    parts = []
    for tick in y.ticks():
        at = _down(y, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_plain(y.write(tick), x=LEFT - 8, y=at + 4, anchor="end"))
    for tick in x.ticks():
        at = _across(x, tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(_plain(x.write(tick), x=at, y=HEIGHT - BOTTOM + 17, anchor="middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(text(x.title, x=middle, y=HEIGHT - 10, anchor="middle", style="title"))
    return svg([*parts, body], width=WIDTH, height=HEIGHT, title=title)


def _plain(words: str, *, x: Number, y: Number, anchor: str) -> str:
    return text(Bilingual(words, words), x=x, y=y, anchor=anchor, style="tick")


def _across(axis: Axis, value: Number) -> Number:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _down(axis: Axis, value: Number) -> Number:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def scatter(points: Sequence[Point], *, x: Axis, y: Axis) -> str:
    """Points with their intervals and names; names move apart where they would overlap."""
    marks, boxes = [], []
    for point in points:
        across, down = _across(x, point.x), _down(y, point.y)
        colour = f"var(--s{point.colour % NUM_COLOURS + 1})"
        if point.is_reference:
            marks.append(
                f'<path class="reference" d="M{across:.1f} {down - 6:.1f}l6 6l-6 6l-6 -6z"/>'
            )
        else:
            top, bottom = _down(y, min(point.high, y.high)), _down(y, max(point.low, y.low))
            marks.append(
                f'<path style="stroke:{colour}" class="bar" d="M{across:.1f} {top:.1f}'
                f'V{bottom:.1f}m-4 0h8M{across - 4:.1f} {top:.1f}h8"/>'
                f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5.5" style="fill:{colour}"/>'
            )
        boxes.append((across, down, point))
    return _frame("".join(marks) + _names(boxes), x=x, y=y, title=f"{y.title.en}; {x.title.en}")


def _names(boxes: Sequence[tuple[Number, Number, Point]]) -> str:
    """Each point's name in the nearest place where it covers no point and no other name."""
    taken = [(x - 8, x + 8, y + 4) for x, y, _ in boxes]
    parts = []
    for across, down, point in sorted(boxes, key=lambda box: box[1]):
        width = max(len(point.label.en) * 6.6, len(point.label.zh) * 11)
        side, at = _free_place(across, down + 4, width=width, taken=taken)
        start = across + side if side > 0 else across + side - width
        taken.append((start, start + width, at))
        if abs(at - down - 4) > 8:
            parts.append(
                f'<path class="leader" d="M{across:.1f} {down:.1f}'
                f'L{across + side:.1f} {at - 4:.1f}"/>'
            )
        anchor = "start" if side > 0 else "end"
        style = "name faint" if point.is_reference else "name"
        parts.append(text(point.label, x=across + side, y=at, anchor=anchor, style=style))
    return "".join(parts)


def _free_place(
    across: Number, level: Number, *, width: Number, taken: Sequence[tuple[Number, Number, Number]]
) -> tuple[int, Number]:
    """Offset to the side (negative: to the left) and height of a free place for a name."""
    for shift in (0, LABEL_GAP, -LABEL_GAP, 2 * LABEL_GAP, -2 * LABEL_GAP, 3 * LABEL_GAP):
        for side in (10, -10):
            start = across + side if side > 0 else across + side - width
            inside = start > LEFT and start + width < WIDTH and level + shift > TOP
            if inside and not any(
                start < right and left < start + width and abs(level + shift - other) < LABEL_GAP
                for left, right, other in taken
            ):
                return side, level + shift
    return (10 if across < WIDTH / 2 else -10), level + 4 * LABEL_GAP


def lines(series: Mapping[str, Sequence[tuple[Number, Number]]], *, x: Axis, y: Axis) -> str:
    """Curves over steps, each with its name at the upper right."""
    parts = []
    for index, (name, points) in enumerate(series.items()):
        stride = max(1, len(points) // CURVE_POINTS)
        kept = [*points[::stride], points[-1]]
        path = "L".join(f"{_across(x, left):.1f} {_down(y, up):.1f}" for left, up in kept)
        colour = f"var(--s{index % NUM_COLOURS + 1})"
        at = TOP + 14 + 16 * index
        parts.append(f'<path class="curve" style="stroke:{colour}" d="M{path}"/>')
        parts.append(
            f'<path class="curve" style="stroke:{colour}" d="M{WIDTH - RIGHT - 20} {at - 4}h16"/>'
        )
        label = Bilingual(name, name)
        parts.append(text(label, x=WIDTH - RIGHT - 26, y=at, anchor="end", style="name"))
    return _frame("".join(parts), x=x, y=y, title=f"{y.title.en}; {x.title.en}")


def strips(rows: Mapping[str, Sequence[Number]], *, labels: Mapping[str, Bilingual]) -> str:
    """One strip of cells a row, darker where a value is larger than the row's mean."""
    left, height, width = 170, 18, 1040
    num_cells = max(len(row) for row in rows.values())
    cell = (width - left) / num_cells
    parts = []
    for index, (name, row) in enumerate(rows.items()):
        top = index * (height + 4)
        label = labels.get(name, Bilingual(name, name))
        parts.append(text(label, x=left - 10, y=top + 13, anchor="end", style="name"))
        mean = sum(row) / len(row) or 1.0
        for place, value in enumerate(row):
            share = min(value / mean / 3, 1.0)
            parts.append(
                f'<rect x="{left + place * cell:.1f}" y="{top}" width="{max(cell - 0.6, 0.4):.1f}" '
                f'height="{height}" fill-opacity="{0.06 + 0.94 * share:.2f}">'
                f"<title>{place}: {value / mean:.2f}x</title></rect>"
            )
    total = len(rows) * (height + 4)
    return svg(parts, width=width, height=total, title="load of experts", style="strips")
