"""What fits a target, as tables that fit a terminal of 100 columns, and as sentences."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limbeck.evaluation.report.number_format import (
    MISSING,
    byte_count,
    counted,
    duration,
    percent,
)
from limbeck.planning.tables import make_table, sentence
from limbeck.planning.target_plan import DesignRow, Miss, ModelPlan, TargetPlan
from limbeck.planning.targets import Target
from limbeck.sizing.hardware import BANDWIDTH_UTILISATION, GPU_UTILISATION

OVER = "*"
BUDGET_NAMES = {
    "disk_bytes": "disk",
    "memory_bytes": "memory",
    "tokens_per_second": "tokens/s",
    "first_token_milliseconds": "first token",
}
COSTS = (
    "位\nbits",
    "磁盘\ndisk",
    "缓存\ncache",
    "内存\nmemory",
    "词元/秒\ntokens/s",
    "首词元\nfirst",
)


def draw_target(planned: TargetPlan) -> Group:
    """The plan as tables to read."""
    title = f"目标 target {planned.name}: {', '.join(_list_budgets(planned.target))}"
    parts: list[RenderableType] = [Text(title, style="bold"), ""]
    for model in planned.models:
        parts += _draw_model(model)
    for entry, fault in planned.left_out.items():
        parts += [sentence(entry, fault), ""]
    return Group(*parts, *_notes(planned))


def _list_budgets(target: Target) -> Iterator[str]:
    if target.disk_bytes:
        yield f"{byte_count(target.disk_bytes)} on disk"
    if target.memory_bytes:
        yield f"{byte_count(target.memory_bytes)} of memory"
    if target.least_tokens_per_second:
        yield f"{target.least_tokens_per_second:.3g} tokens/s"
    if target.first_token_milliseconds:
        yield f"a first token in {duration(target.first_token_milliseconds / 1000)}"


def _draw_model(model: ModelPlan) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if model.asked:
        row = model.asked[0]
        parts += [
            _draw_rows(
                f"{model.name}: {_shape(row)}, {counted(row.estimate.parameters)} parameters "
                f"({OVER} over)",
                model.asked,
                shows_shape=False,
            ),
            "",
            sentence(model.name, describe_stated(model.asked)),
            "",
        ]
    changed = [row for row in model.fitting if row.made_by != "as it is"]
    if changed:
        title = "放得下 designs that fit (width x layers x channels)"
        parts += [_draw_rows(title, changed, shows_shape=True), ""]
        parts += [
            sentence(_name(row), f"prune with {_settings(row)}, then distil again")
            for row in changed
            if row.settings
        ]
    for row in model.nearest:
        parts.append(sentence(_name(row), describe_nearest(row)))
    for name, fault in model.impossible.items():
        parts.append(sentence(name, f"does not hold {model.name} as it is: {fault}"))
    return [*parts, ""]


def _draw_rows(title: str, rows: Sequence[DesignRow], *, shows_shape: bool) -> Table:
    shape = ("形状\nshape", "参数\nparameters") if shows_shape else ()
    table = make_table(title, "格式\nformat", *shape, *COSTS)
    for row in rows:
        found = row.estimate
        over = {miss.budget for miss in row.misses}

        def cell(budget: str, text: str, over: set[str] = over) -> str:
            return text + OVER * (budget in over)

        speed = f"{found.tokens_per_second:.3g}" if found.tokens_per_second else MISSING
        first = duration(found.first_token_seconds) if found.first_token_seconds else MISSING
        design = (_shape(row), counted(found.parameters)) if shows_shape else ()
        table.add_row(
            _name(row),
            *design,
            f"{found.bits_per_weight:.2f}",
            cell("disk_bytes", byte_count(found.disk_bytes)),
            byte_count(found.cache_bytes),
            cell("memory_bytes", byte_count(found.memory_bytes)),
            cell("tokens_per_second", speed),
            cell("first_token_milliseconds", first),
        )
    return table


def describe_stated(rows: Sequence[DesignRow]) -> str:
    """In which formats a model fits as it is, or by how much the nearest misses."""
    fitting = [row for row in rows if not row.misses]
    if fitting:
        return f"fits in {', '.join(map(_name, fitting))}"
    best = min(rows, key=lambda row: max(miss.factor for miss in row.misses))
    return f"does not fit as it is: the nearest is {_name(best)}, {_misses(best)}"


def describe_nearest(row: DesignRow) -> str:
    """Which budget forbids every design of a format."""
    made = "" if row.made_by == "fresh" else f", {row.made_by}"
    return (
        f"no design fits; the nearest, {_shape(row)}{made} "
        f"({counted(row.estimate.parameters)} parameters), has {_misses(row)}"
    )


def _misses(row: DesignRow) -> str:
    return ", ".join(map(_miss, row.misses))


def _miss(miss: Miss) -> str:
    name = BUDGET_NAMES[miss.budget]
    if miss.budget == "tokens_per_second":
        return f"{miss.found:.3g} {name} of {miss.allowed:.3g}"
    if miss.budget == "first_token_milliseconds":
        found, allowed = (duration(value / 1000) for value in (miss.found, miss.allowed))
    else:
        found, allowed = byte_count(miss.found), byte_count(miss.allowed)
    return f"{miss.factor:.2f} times the {name} ({found} of {allowed})"


def _shape(row: DesignRow) -> str:
    names = ("hidden_size", "num_hidden_layers", "intermediate_size")
    return "x".join(str(row.shape[name]) for name in names)


def _settings(row: DesignRow) -> str:
    return ", ".join(f"{name}: {value:.3g}" for name, value in row.settings.items())


def _name(row: DesignRow) -> str:
    return row.estimate.file_format


def _notes(planned: TargetPlan) -> list[Text]:
    target, machine = planned.target, planned.target.machine
    notes = [
        f"{model.name}: {model.vocab:,} tokens in the vocabulary ({model.vocabulary_from})"
        for model in planned.models
    ]
    notes.append("designs: the least pruned that fits, or the largest fresh one of the family")
    if machine.bytes_per_second:
        share = percent(BANDWIDTH_UTILISATION, digits=0)
        notes.append(
            f"tokens/s: weights and the cache of {target.context_tokens:,} tokens read once, at "
            f"{share} of {byte_count(machine.bytes_per_second)}/s"
            + (f", or unpacked by {machine.threads} cores" if machine.threads else "")
        )
    if machine.flops_per_second:
        share = percent(GPU_UTILISATION["dense"], digits=0)
        notes.append(
            f"first token: a prompt of {target.prompt_tokens:,} tokens at {share} of "
            f"{counted(machine.flops_per_second)} operations/s"
        )
    notes.append(
        "fewer bits and fewer channels cost quality, which no arithmetic tells: docs/budgets.md"
    )
    return [Text(note, style="dim") for note in notes]
