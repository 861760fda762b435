"""A plan as tables that fit a terminal of 100 columns."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limbeck.evaluation.report.number_format import MISSING, Number, byte_count, counted
from limbeck.planning.rows import FormatServing, ModelCost, Plan, PlanRow, TrainingOnCards
from limbeck.sizing.cards import Cards, Serving
from limbeck.sizing.memory import LAYOUTS, LayoutName

SHOWN_LAYOUTS: tuple[LayoutName, ...] = ("ddp", "zero0", "zero1", "zero2", "zero3", "fsdp2")
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 31_557_600


def draw(planned: Plan) -> Group:
    """The plan as tables to read."""
    models = {row.name: row.model for row in planned.rows if row.model}
    trained = {row.name: row.trained.training for row in planned.rows if row.trained}
    parts: list[RenderableType] = [_draw_entries(planned.rows)]
    if models:
        parts += ["", _draw_formats(models)]
    if trained:
        parts += ["", _draw_training(trained, planned.assumed.training), ""]
        parts += _verdict_lines({name: item.verdict for name, item in trained.items()})
    if models:
        parts += ["", _draw_serving(models, planned.assumed.inference), ""]
        parts += _verdict_lines({name: item.inference.verdict for name, item in models.items()})
        parts += ["", *_size_target_lines(models, planned.assumed.size_targets_bytes)]
    return Group(*parts, "", *_assumption_lines(planned))


def make_table(title: str, *columns: str) -> Table:
    """A table without lines, its first column on the left."""
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


def _draw_entries(rows: Sequence[PlanRow]) -> Table:
    table = make_table(
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
        model, trained = row.model, row.trained
        table.add_row(
            row.name,
            row.stage,
            counted(model.parameters) if model else MISSING,
            counted(model.active_parameters) if model else MISSING,
            counted(model.forward_flops_per_token) if model else MISSING,
            counted(trained.training_tokens) if trained else MISSING,
            span(trained.seconds) if trained else MISSING,
        )
    return table


def _draw_formats(models: Mapping[str, ModelCost]) -> Table:
    names = list(next(iter(models.values())).bytes)
    table = make_table(
        "权重 weights by number format, scales and embeddings counted", "条目 entry", *names
    )
    _add_rows(
        table,
        {entry: [byte_count(item.bytes[name]) for name in names] for entry, item in models.items()},
    )
    return table


def _add_rows(table: Table, cells: Mapping[str, Sequence[str]]) -> None:
    """Entries with equal cells share a row."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, row in cells.items():
        names.setdefault(tuple(row), []).append(name)
    for row, sharing in names.items():
        table.add_row("\n".join(sharing), *row)


def _draw_training(trained: Mapping[str, TrainingOnCards], cards: Cards) -> Table:
    table = make_table(
        f"训练显存 memory of training on each of {cards}, as the recipe says",
        "条目 entry",
        *(LAYOUTS[layout].title for layout in SHOWN_LAYOUTS),
        "激活 activations",
        "词元/秒 tokens/s",
        "用时 time",
    )
    for name, item in trained.items():
        rate = item.way.tokens_per_second if item.way else None
        seconds = item.way.seconds if item.way else None
        table.add_row(
            name,
            *(byte_count(item.by_layout[layout].total) for layout in SHOWN_LAYOUTS),
            byte_count(item.by_layout["ddp"].memory.activations),
            counted(rate) if rate else MISSING,
            span(seconds) if seconds else MISSING,
        )
    return table


def _draw_serving(models: Mapping[str, ModelCost], serving: Serving) -> Table:
    names = list(next(iter(models.values())).inference.by_format)
    table = make_table(
        f"推理 answering on {serving}: memory, and new tokens/s (* does not fit)",
        "条目 entry",
        *names,
    )
    _add_rows(
        table,
        {
            entry: [_serving_cell(item.inference.by_format[name]) for name in names]
            for entry, item in models.items()
        },
    )
    return table


def _serving_cell(found: FormatServing) -> str:
    star = "" if found.fits else "*"
    return f"{byte_count(found.total)}{star}\n{counted(found.tokens_per_second)}/s"


def _verdict_lines(verdicts: Mapping[str, str]) -> list[Text]:
    """One sentence an entry; entries with the same sentence share one."""
    by_verdict: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        by_verdict.setdefault(verdict, []).append(name)
    return [sentence(", ".join(names), text) for text, names in by_verdict.items()]


def _size_target_lines(models: Mapping[str, ModelCost], targets: Mapping[str, int]) -> list[Text]:
    lines = []
    for target, budget in targets.items():
        lines.append(Text(f"体积目标 size target {target}, {byte_count(budget)}", style="bold"))
        lines += _verdict_lines(
            {name: item.size_targets[target].verdict for name, item in models.items()}
        )
    return lines


def sentence(name: str, text: str) -> Text:
    """A verdict on something, its name in bold; whether it fits stands in Chinese too."""
    mark = (
        "放不下" if text.startswith("does not fit") else "放得下" if text.startswith("fits") else ""
    )
    line = Text(f"{name}: ", style="bold", overflow="fold")
    return line.append(f"{mark} " if mark else "", style="not bold").append(text, style="not bold")


def _assumption_lines(planned: Plan) -> list[Text]:
    speed = planned.speed
    notes = [
        f"time here: {span(planned.seconds)} of training in all at "
        f"{speed.flops_per_second / 1e9:,.0f} GFLOP/s measured now ({speed.device}, "
        f"{speed.num_threads} threads)"
    ]
    for name, item in planned.corpora.items():
        how = (
            "length assumed, for the corpus is not made yet; `--until` makes it"
            if item.assumed
            else "measured"
        )
        notes.append(
            f"{name}: {item.vocab:,} tokens in the vocabulary, {item.record_tokens:.1f} a "
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
