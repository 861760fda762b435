"""A harness's results as a table for people and as plain data for programs."""

import dataclasses

from rich.table import Table

from limbeck import __version__
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.serialization import to_json
from limbeck.harness.results import MetricRow
from limbeck.harness.run import HarnessReport

ARROWS = {True: "higher is better", False: "lower is better", None: ""}
NO_INTERVAL = "none"


def make_table(report: HarnessReport) -> Table:
    """One row for each metric of each task and for each model."""
    prompts = {"chat": "asked as conversations", "plain": "asked as plain text"}
    table = Table(
        title=f"lm-evaluation-harness {report.lm_eval}, {prompts[report.settings.prompts]}",
        caption="n: documents asked, of those in the split. 95 %: from lm-eval's standard error "
        "and n; right or wrong answers have Wilson's interval. "
        f"{NO_INTERVAL}: lm-eval has no standard error for the metric, or one document was asked.",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("task", "metric", "model"):
        table.add_column(name, overflow="fold")
    for name in ("value", "95 %", "n", "split", "examples"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in report.rows:
        here = (row.task, row.metric)
        if last is not None and here != last:
            table.add_section()
        first = here != last
        direction = ARROWS[row.higher_is_better]
        table.add_row(
            row.task if first else "",
            f"{row.metric}\n({direction})" if first and direction else row.metric if first else "",
            row.model,
            f"{row.value:.4g}",
            _show_interval(row),
            _show_count(row),
            row.split,
            str(row.num_fewshot),
        )
        last = here
    return table


def list_warnings(report: HarnessReport) -> list[str]:
    """What a reader of the numbers must know besides."""
    return [
        f"{model.name}: {model.num_truncated:,} requests were longer than the model reads, and "
        "lost the start of their context"
        for model in report.models
        if model.num_truncated
    ]


def as_json(report: HarnessReport) -> JsonObject:
    """Everything but the single documents."""
    models = [
        {
            "name": model.name,
            "path": model.path,
            "num_truncated": model.num_truncated,
            "rows": [dataclasses.asdict(row) for row in model.rows],
        }
        for model in report.models
    ]
    return {
        "limbeck": __version__,
        "lm_eval": report.lm_eval,
        "settings": to_json(report.settings),
        "models": models,
    }


def _show_interval(row: MetricRow) -> str:
    if row.low is None or row.high is None:
        return NO_INTERVAL
    return f"{row.low:.4g} to {row.high:.4g}"


def _show_count(row: MetricRow) -> str:
    if row.num_questions == row.num_available:
        return f"{row.num_questions:,}"
    return f"{row.num_questions:,} of {row.num_available:,}"
