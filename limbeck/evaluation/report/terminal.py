"""The report's tables for a terminal."""

from collections.abc import Mapping

from rich import box
from rich.table import Table

from limbeck.evaluation.quality import TextScores
from limbeck.evaluation.report import number_format
from limbeck.evaluation.report.build import Report
from limbeck.evaluation.report.number_format import Bounded, ValueBounded
from limbeck.evaluation.report.published_reference import PublishedResult
from limbeck.evaluation.report.rows import FloorRow, ReportRow
from limbeck.evaluation.report.same_runtime import RuntimeSpeedup
from limbeck.evaluation.report.without_teacher import TeacherGain, Training

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

BEATEN = "▼"
TRAINING: Mapping[Training, str] = {"trained without a teacher (labels alone)": "labels alone"}


def make_table(report: Report) -> Table:
    """The rows of a `report.json`, and the reference's ratios below them."""
    first = report.rows[0]
    table = Table(
        title=f"{report.corpus.name}: {first.accuracy_interval.count} questions never "
        f"trained on; batch 1, {first.latency_threads} thread",
        caption=f"kept, faster, smaller: against {report.teacher}, its weights counted in bf16; "
        f"accuracy pools {', '.join(report.headline_tasks)}{_explain_marks(report)}"
        + "".join(map(_explain_length, report.rows))
        + "".join(map(_explain_gain, report.teacher_gains))
        + "".join(map(_explain_runtime, report.in_runtimes)),
        box=box.SIMPLE_HEAVY,
        padding=(0, 1),
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row))
    table.add_section()
    for floor in report.floors:
        accuracy = _two(floor.accuracy_interval, floor.accuracy)
        table.add_row(floor.name, *[""] * 5, accuracy, *[""] * 3)
    table.add_section()
    for name, item in report.reference.items():
        table.add_row(*_reference_cells(name, item), style="dim")
    return table


def make_task_table(report: Report) -> Table:
    """The rows of a `report.json`, task by task; tasks with * are not in the accuracy."""
    table = Table(caption=_explain_gaps(report), box=box.SIMPLE_HEAVY, padding=(0, 1))
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
                number_format.score(share) + (f" [red]{BEATEN}[/]" if task in row.beaten_in else "")
                for task, share in row.tasks.items()
            ),
            *([number_format.nats(row.log_likelihood)] if row.log_likelihood else []),
        )
    table.add_section()
    for floor in report.floors:
        shares = [floor.tasks.get(task) for task in report.rows[0].tasks]
        cells = [number_format.score(share) if share else number_format.MISSING for share in shares]
        table.add_row(floor.name, *cells, *[""] * bool(likelihood))
    return table


def _explain_gain(gain: TeacherGain) -> str:
    found = (
        f"\n{gain.student} minus {gain.alone} (same start and steps, no teacher): "
        f"{number_format.points(gain)} points"
    )
    if gain.nats_per_byte is not None:
        found += f", {number_format.nats_more(gain.nats_per_byte)} nats a byte (less is better)"
    return found


def _explain_runtime(found: RuntimeSpeedup) -> str:
    return (
        f"\n{found.model} beside {found.teacher}, both in {found.runtime}: "
        f"{number_format.times(found.speedup)} ({number_format.times_range(found)}) faster"
    )


def _explain_length(row: ReportRow) -> str:
    if not row.num_too_long:
        return ""
    return (
        f"\n{row.name}: {row.num_too_long} of {row.accuracy_interval.count} questions are longer "
        "than it reads, and count as wrong"
    )


def _explain_marks(report: Report) -> str:
    """What the floors are, and what a mark means."""
    if not report.floors:
        return ""
    names = ", ".join(floor.name for floor in report.floors)
    return f"\n{names}: floors, made from the training records alone; {BEATEN} beaten by a floor"


def _explain_gaps(report: Report) -> str:
    """Why a floor has no answers to a task."""
    reasons: dict[str, list[str]] = {}
    for floor in report.floors:
        for task, reason in floor.missing.items():
            reasons.setdefault(f"{floor.name}: {reason}", []).append(task)
    return "\n".join(f"{reason} ({', '.join(tasks)})" for reason, tasks in reasons.items())


def make_score_table(report: Report) -> Table | None:
    """How much free answers share with the written ones, and how well labels are distinguished.

    None where the report has neither.
    """
    first = report.rows[0]
    if not first.texts and not first.labels:
        return None
    table = Table(box=box.SIMPLE_HEAVY, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for task, scores in first.texts.items():
        for name in _text_scores(scores):
            heading = f"{task}\n{name} n={scores.exact_match.count}"
            table.add_column(heading, justify="right", no_wrap=True)
    for task, labels in first.labels.items():
        table.add_column(f"{task}\nmacro-F1 of {labels.num_labels}", justify="right", no_wrap=True)
    if first.nats_per_byte:
        table.add_column("nats\nper byte", justify="right", no_wrap=True)
    for row in report.rows:
        nats = [number_format.nats(row.nats_per_byte)] if row.nats_per_byte else []
        table.add_row(row.name, *_score_cells(row, first), *nats)
    table.add_section()
    for floor in report.floors:
        table.add_row(floor.name, *_score_cells(floor, first))
    return table


def make_declined_table(report: Report) -> Table | None:
    """How often the calibrated models say that they do not know; None where there is none."""
    rows = [(row.name, row.declined) for row in report.rows if row.declined]
    if not rows:
        return None
    table = Table(
        caption="declined: answered with 不知道 / I do not know, below the calibrated confidence; "
        "foreign questions are of other domains and languages",
        box=box.SIMPLE_HEAVY,
        padding=(0, 1),
    )
    for column in ("model", "foreign declined", "right answers declined", "wrong answers declined"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for name, declined in rows:
        shares = (declined.foreign, declined.right, declined.wrong)
        cells = [f"{number_format.score(share)} n={share.count}" for share in shares]
        table.add_row(name, *cells)
    return table


def make_routing_table(report: Report) -> Table | None:
    """Which tier answers how much, and what that keeps; None where the report has no router."""
    if report.routing is None:
        return None
    routing = report.routing
    table = Table(
        caption=f"routing between tiers, n={routing.accuracy.count}; promised from validation "
        f"questions: {routing.promise.describe()}",
        box=box.SIMPLE_HEAVY,
        padding=(0, 1),
    )
    for column in ("tier", "right and shown, alone", "answers", "kept"):
        table.add_column(column, justify="left" if column == "tier" else "right", no_wrap=True)
    for tier in routing.tiers:
        share = number_format.percent(tier.answered_ratio)
        table.add_row(tier.name, number_format.score(tier.accuracy), share, "")
    kept = number_format.score(routing.kept) if routing.kept else number_format.MISSING
    table.add_row("all, by the router", number_format.score(routing.accuracy), "", kept)
    return table


def _score_cells(row: ReportRow | FloorRow, first: ReportRow) -> list[str]:
    """A cell for each column that the first row has; a floor may lack a task."""
    found: list[ValueBounded | None] = []
    for task, measured in first.texts.items():
        scores = row.texts.get(task)
        found += _text_scores(scores).values() if scores else [None] * len(_text_scores(measured))
    labels = [row.labels.get(task) for task in first.labels]
    found += [item.macro_f1 if item else None for item in labels]
    return [number_format.score(item) if item else number_format.MISSING for item in found]


def _text_scores(scores: TextScores) -> dict[str, ValueBounded]:
    """What a task's columns show: where every answer is a list, the order of words is no merit."""
    if scores.entity_f1 and scores.entity_f1.count == scores.exact_match.count:
        return {"exact": scores.exact_match, "entity F1": scores.entity_f1}
    return {
        "exact": scores.exact_match,
        "token F1": scores.token_f1,
        "chrF": scores.chrf,
        "ROUGE-L": scores.rouge_l,
    }


def _cells(row: ReportRow) -> list[str]:
    return [
        _name(row),
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


def _name(row: ReportRow) -> str:
    """The model's name, and below it how it was trained and the floors that beat it."""
    training = [TRAINING[row.training]] if row.training else []
    return "\n".join(
        [row.name, *training, *(f"[red]{BEATEN} {floor}[/]" for floor in row.beaten_by)]
    )


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
