"""The report's tables for a terminal."""

from rich import box
from rich.table import Table

from limbeck.evaluation.report import number_format
from limbeck.evaluation.report.build import Report
from limbeck.evaluation.report.number_format import Bounded
from limbeck.evaluation.report.published_reference import PublishedResult
from limbeck.evaluation.report.rows import Row

COLUMNS = (
    "model",
    "params\nactive",
    "weights\non disk",
    "peak\nmemory",
    "time p50\np95",
    "tokens/s",
    "accuracy\n(95 %)",
    "kept\n(95 %)",
    "faster\n(95 %)",
    "smaller",
)


def make_table(report: Report) -> Table:
    """The rows of a `report.json`, and the reference's ratios below them."""
    first = report.rows[0]
    table = Table(
        title=f"{report.corpus.name}: {first.accuracy_interval.count} questions never "
        f"trained on; batch 1, {first.latency_threads} thread",
        caption=f"kept, faster, smaller: against {report.teacher}, its weights counted in bf16; "
        f"accuracy pools {', '.join(report.headline_tasks)}",
        box=box.SIMPLE_HEAVY,
        padding=(0, 1),
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row))
    table.add_section()
    for name, item in report.reference.items():
        table.add_row(*_reference_cells(name, item), style="dim")
    return table


def make_task_table(report: Report) -> Table:
    """The rows of a `report.json`, task by task; tasks with * are not in the accuracy."""
    table = Table(box=box.SIMPLE_HEAVY, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for task, share in report.rows[0].tasks.items():
        star = "" if task in report.headline_tasks else " *"
        table.add_column(f"{task}{star}\nn={share.count}", justify="right", no_wrap=True)
    likelihood = report.rows[0].log_likelihood
    if likelihood:
        table.add_column(f"log-likelihood\nn={likelihood.count}", justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(
            row.name,
            *(
                f"{number_format.percent(share.value)} ({number_format.percent_range(share)})"
                for share in row.tasks.values()
            ),
            *([number_format.nats(row.log_likelihood)] if row.log_likelihood else []),
        )
    return table


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{number_format.counted(row.parameters)}\n{number_format.counted(row.active_parameters)}",
        f"{number_format.byte_count(row.weight_bytes)}\n{number_format.byte_count(row.size_bytes)}",
        number_format.byte_count(row.peak_memory_bytes),
        f"{number_format.duration(row.latency_seconds.p50)}\n{number_format.duration(row.latency_seconds.p95)}",
        f"{row.tokens_per_second:,.0f}",
        _two(row.accuracy_interval, row.accuracy),
        _two(row.kept_interval, row.kept_ratio),
        f"{number_format.times(row.speedup_ratio)}\n{number_format.times_range(row.speedup_interval)}",
        number_format.times(row.memory_ratio),
    ]


def _two(interval: Bounded | None, value: float | None) -> str:
    """A percentage with its interval on the line below."""
    return f"{number_format.percent(value)}\n{number_format.percent_range(interval)}"


def _reference_cells(name: str, item: PublishedResult) -> list[str]:
    return [
        f"ref. {name}",
        "",
        number_format.byte_count(item.memory_bytes),
        "",
        number_format.duration(item.latency_seconds),
        "",
        number_format.percent(item.accuracy),
        number_format.percent(item.kept_ratio),
        number_format.times(item.speedup_ratio),
        number_format.times(item.memory_ratio),
    ]
