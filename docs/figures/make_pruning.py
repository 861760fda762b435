"""Draws the pruning curves and writes their tables, from the committed result.

    python docs/figures/make_pruning.py

Run it after `benchmarks/pruning_curves.py` added a run; `tests/docs/test_made_pages.py` compares
what it makes with the files.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "pruning_curves.json"
PAGE = ROOT / "docs" / "pruning.md"
FIGURE = ROOT / "docs" / "figures" / "pruning.svg"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 30, 170, 50
HIGHEST = 1e7
COLORS = {
    "contribution": "#2f7f79",
    "taylor": "#b4541a",
    "mean_abs": "#4a6fa5",
    "l1": "#8a6d3b",
    "group_l2": "#7b4a8d",
    "norm_product": "#a33b4a",
    "random": "#7b8794",
}
STYLE = (
    "text{font-family:-apple-system,Segoe UI,Helvetica,Noto Sans CJK SC,sans-serif;"
    "font-size:13px;fill:#1f2933}.grid{stroke:#e4e7eb}.curve{fill:none;stroke-width:2}"
)
RATIO = ("over_uncut", "over_uncut_low", "over_uncut_high")
Curve = Mapping[float, Sequence[float]]
"""Perplexities by share: one, or one for each seed; of experts each with its interval."""


def read_curves() -> tuple[float, dict[str, dict[str, Curve]]]:
    """Perplexity of the model whose channels were cut, and each kind's curves by its newest run.

    Those of experts are perplexities over the uncut model's, each with its interval.
    """
    curves: dict[str, dict[str, dict[float, list[float]]]] = {}
    uncut = math.nan
    for run in json.loads(RESULT.read_text(encoding="utf-8"))["runs"]:
        kinds = {row["what"] for row in run["rows"]} - {"nothing"}
        curves |= {kind: {} for kind in kinds}
        for row in run["rows"]:
            if row["what"] == "nothing":
                uncut = row["perplexity"] if "channels" in kinds else uncut
                continue
            points = curves[row["what"]].setdefault(row["criterion"], {})
            found = points.setdefault(round(row["cut_ratio"], 2), [])
            names = RATIO if row["what"] == "experts" else ("perplexity",)
            found += [row[name] for name in names]
    return uncut, {kind: dict(found) for kind, found in curves.items()}


def make_files() -> dict[Path, str]:
    """The figure and the page, as they are to be."""
    uncut, curves = read_curves()
    page = PAGE.read_text(encoding="utf-8")
    for kind, found in curves.items():
        show = _show_ratio if kind == "experts" else _show
        table = "\n".join(_make_table(found, show=show))
        start, end = f"<!-- {kind}: docs/figures/make_pruning.py -->", f"<!-- end of {kind} -->"
        assert start in page, start
        pattern = f"{re.escape(start)}.*?{re.escape(end)}"
        page = re.sub(pattern, lambda _: f"{start}\n{table}\n{end}", page, flags=re.DOTALL)  # noqa: B023
    return {FIGURE: _draw(curves["channels"], uncut=uncut), PAGE: page}


def _make_table(
    curves: Mapping[str, Curve], *, show: Callable[[Sequence[float]], str]
) -> list[str]:
    shares = sorted(next(iter(curves.values())))
    heads = "".join(f" {share:.0%} |" for share in shares).replace("%", " %")
    lines = [f"| criterion |{heads}", "| --- |" + " ---: |" * len(shares)]
    for name, curve in curves.items():
        cells = " | ".join(show(curve[share]) for share in shares)
        lines.append(f"| `{name}` | {cells} |")
    return lines


def _show(found: Sequence[float]) -> str:
    ends = [_round(value) for value in sorted({min(found), max(found)})]
    return "–".join(dict.fromkeys(ends))


def _show_ratio(found: Sequence[float]) -> str:
    if len(found) > len(RATIO):  # of several seeds
        every = found[:: len(RATIO)]
        return f"{min(every):.2f}–{max(every):.2f}"
    value, low, high = found
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def _round(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _place(share: float, perplexity: float) -> tuple[float, float]:
    across = LEFT + share / 0.6 * (WIDTH - LEFT - RIGHT)
    up = (math.log10(min(perplexity, HIGHEST)) - 1) / (math.log10(HIGHEST) - 1)
    return across, HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _draw(curves: Mapping[str, Curve], *, uncut: float) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>Perplexity by the share of channels cut</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
    ]
    for exponent in range(1, 8):
        x, y = _place(0, 10**exponent)
        parts.append(
            f'<line class="grid" x1="{x:.0f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
            f'<text x="{x - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>'
        )
    for tenth in range(7):
        x, y = _place(tenth / 10, 10)
        parts.append(
            f'<text x="{x:.1f}" y="{y + 20:.0f}" text-anchor="middle">{tenth * 10} %</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">channels cut</text>'
        f'<text x="{LEFT - 60}" y="{TOP - 12}">perplexity</text>'
    )
    parts += [_draw_curve(name, curve, uncut=uncut) for name, curve in curves.items()]
    parts += _draw_names(curves)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_curve(name: str, curve: Curve, *, uncut: float) -> str:
    shares = sorted(curve)
    lowest = [(0.0, uncut), *((share, min(curve[share])) for share in shares)]
    highest = [(0.0, uncut), *((share, max(curve[share])) for share in shares)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(*point) for point in lowest))
    if lowest == highest:
        return f'<polyline class="curve" stroke="{COLORS[name]}" points="{line}"/>'
    back = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(*p) for p in reversed(highest)))
    return f'<polygon fill="{COLORS[name]}" fill-opacity="0.3" points="{line} {back}"/>'


def _draw_names(curves: Mapping[str, Curve]) -> list[str]:
    """Names at the ends of the curves, moved apart where they would overlap."""
    ends = {name: max(curve[max(curve)]) for name, curve in curves.items()}
    parts, last = [], -math.inf
    for name in sorted(ends, key=lambda item: -ends[item]):
        last = max(last + 16, _place(0.6, ends[name])[1] + 4)
        note = " (three seeds)" if name == "random" else ""
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{last:.1f}" style="fill:{COLORS[name]}">'
            f"{name}{note}</text>"
        )
    return parts


def main() -> None:
    """Write the files."""
    for path, text in make_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
