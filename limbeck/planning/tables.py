"""A plan as tables that fit a terminal of 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limbeck.evaluation.report.number_format import MISSING, Number, byte_count, counted
from limbeck.sizing.memory import LAYOUTS

SHOWN_LAYOUTS = ("ddp", "zero0", "zero1", "zero2", "zero3", "fsdp2")
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 31_557_600


def draw(planned: Mapping[str, Any]) -> Group:
    """The plan as tables to read."""
    rows: Sequence[Mapping[str, Any]] = planned["rows"]
    models = [row for row in rows if "bytes" in row]
    trained = [row for row in rows if "training" in row]
    parts: list[RenderableType] = [_draw_entries(rows)]
    if models:
        parts += ["", _draw_formats(models)]
    if trained:
        parts += ["", _draw_training(trained, planned), "", *_verdict_lines(trained, "training")]
    if models:
        parts += ["", _draw_serving(models, planned), "", *_verdict_lines(models, "inference")]
        parts += ["", *_size_target_lines(models, planned)]
    return Group(*parts, "", *_assumption_lines(planned))


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _draw_entries(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "规模 size",
        "条目 entry",
        "阶段 stage",
        "参数 parameters",
        "激活 active",
        "FLOP/词元 token",
        "训练词元 tokens",
        "本机用时 time here",
    )
    for row in rows:
        if "parameters" not in row:
            table.add_row(row["name"], row["stage"], *[MISSING] * 5)
            continue
        trains = "seconds" in row
        table.add_row(
            row["name"],
            row["stage"],
            counted(row["parameters"]),
            counted(row["active_parameters"]),
            counted(row["forward_flops_per_token"]),
            counted(row["training_tokens"]) if trains else MISSING,
            span(row["seconds"]) if trains else MISSING,
        )
    return table


def _draw_formats(models: Sequence[Mapping[str, Any]]) -> Table:
    names = list(models[0]["bytes"])
    table = _table(
        "权重 weights by number format, scales and embeddings counted", "条目 entry", *names
    )
    _add_rows(
        table,
        {row["name"]: [byte_count(row["bytes"][name]) for name in names] for row in models},
    )
    return table


def _add_rows(table: Table, cells: Mapping[str, Sequence[str]]) -> None:
    """Entries with equal cells share a row."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, row in cells.items():
        names.setdefault(tuple(row), []).append(name)
    for row, sharing in names.items():
        table.add_row("\n".join(sharing), *row)


def _draw_training(rows: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]) -> Table:
    cards = planned["assumed"]["training"]
    table = _table(
        f"训练显存 memory of training on each of {cards['count']} x {cards['gpu']}, as the recipe "
        "says",
        "条目 entry",
        *(LAYOUTS[layout].title for layout in SHOWN_LAYOUTS),
        "激活 activations",
        "词元/秒 tokens/s",
        "用时 time",
    )
    for row in rows:
        training = row["training"]
        by_layout = training["by_layout"]
        way = training["fit"] or training["needed"] or training["larger"] or {}
        rate = way.get("tokens_per_second")
        table.add_row(
            row["name"],
            *(byte_count(by_layout[layout]["total"]) for layout in SHOWN_LAYOUTS),
            byte_count(by_layout["ddp"]["activations"]),
            counted(rate) if rate else MISSING,
            span(way["seconds"]) if rate else MISSING,
        )
    return table


def _draw_serving(models: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]) -> Table:
    serving = planned["assumed"]["inference"]
    names = list(models[0]["inference"]["by_format"])
    table = _table(
        f"推理 answering on {serving['count']} x {serving['gpu']}: memory, and new tokens/s "
        "(* does not fit)",
        "条目 entry",
        *names,
    )
    _add_rows(
        table,
        {
            row["name"]: [_serving_cell(row["inference"]["by_format"][name]) for name in names]
            for row in models
        },
    )
    return table


def _serving_cell(found: Mapping[str, Any]) -> str:
    star = "" if found["fits"] else "*"
    return f"{byte_count(found['total'])}{star}\n{counted(found['tokens_per_second'])}/s"


def _verdict_lines(rows: Sequence[Mapping[str, Any]], what: str) -> list[Text]:
    """One sentence a row; rows with the same sentence share one."""
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        by_verdict.setdefault(row[what]["verdict"], []).append(row["name"])
    return [_sentence(", ".join(names), text) for text, names in by_verdict.items()]


def _size_target_lines(
    models: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]
) -> list[Text]:
    lines = []
    for target, budget in planned["assumed"]["size_targets_bytes"].items():
        lines.append(Text(f"体积目标 size target {target}, {byte_count(budget)}", style="bold"))
        by_verdict: dict[str, list[str]] = {}
        for row in models:
            verdict = row["size_targets"][target]["verdict"]
            by_verdict.setdefault(verdict, []).append(row["name"])
        lines += [_sentence(", ".join(names), text) for text, names in by_verdict.items()]
    return lines


def _sentence(name: str, text: str) -> Text:
    mark = (
        "放不下" if text.startswith("does not fit") else "放得下" if text.startswith("fits") else ""
    )
    line = Text(f"{name}: ", style="bold", overflow="fold")
    return line.append(f"{mark} " if mark else "", style="not bold").append(text, style="not bold")


def _assumption_lines(planned: Mapping[str, Any]) -> list[Text]:
    speed = planned["speed"]
    notes = [
        f"time here: {span(planned['seconds'])} of training in all at "
        f"{speed['flops_per_second'] / 1e9:,.0f} GFLOP/s measured now ({speed['device']}, "
        f"{speed['num_threads']} threads)"
    ]
    for name, item in planned["corpora"].items():
        how = "assumed, for the corpus is not made yet" if item["assumed"] else "measured"
        notes.append(
            f"{name}: {item['vocab']:,} tokens in the vocabulary, {item['record_tokens']:.1f} a "
            f"record ({how})"
        )
    notes.append(
        "tokens/s and time are of the way that fits, for large models; formulas and what they "
        "assume: docs/planning.md"
    )
    return [Text(note, style="dim") for note in notes]


def span(seconds: Number) -> str:
    """A time in the unit that suits it, from seconds to years."""
    for unit, length in (("years", YEAR), ("days", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= 2 * length:
            return (
                f"{seconds / length:,.0f} {unit}"
                if seconds >= 100 * length
                else f"{seconds / length:.3g} {unit}"
            )
    return f"{seconds:.3g} s"
