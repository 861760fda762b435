"""What a search leaves: `report.html`, `report.md`, `trials.csv` and perhaps `winning.yaml`."""

import csv
import io
import json
import textwrap
from pathlib import Path
from typing import Any

import optuna
import yaml
from markupsafe import Markup
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.page_templates import load_template
from limbeck.contracts.recipe import PLAN, SERVE, TUNE
from limbeck.evaluation.report import charts, html, number_format
from limbeck.evaluation.report.charts import Bilingual
from limbeck.evaluation.report.rows import Bounds
from limbeck.tuning import markdown, plots
from limbeck.tuning.dimensions import label
from limbeck.tuning.outcome import MEASURED, Search, find_best, fits, over
from limbeck.tuning.summary import (
    STATES,
    explain,
    list_confirmed,
    list_rungs,
    list_trials,
    read_measured,
    seconds,
    warn,
    write_difference,
    write_setting,
    write_value,
)

MEASURES = (
    "kept_ratio",
    "kept_low",
    "kept_high",
    "accuracy",
    "log_likelihood",
    "parameters",
    "mib",
    "latency_ms",
)
FEWEST_TRIALS = 4
"""Importances of fewer finished trials would be noise."""
TITLES = {
    "kept_accuracy": Bilingual("保留率（验证集）", "accuracy kept (validation)"),
    "likelihood": Bilingual("验证对数似然", "validation log-likelihood"),
}


def write_report(found: Search) -> Path | None:
    """Write the files; the winning recipe's path, or None where the recipe's own settings stay."""
    write_atomically(found.folder / "trials.csv", make_csv(found))
    write_atomically(found.folder / "report.html", render(found))
    write_atomically(found.folder / "report.md", markdown.render(found))
    path = found.folder / "winning.yaml"
    if not found.verdict.changes_recipe or found.verdict.recommended is None:
        path.unlink(missing_ok=True)
        return None
    write_atomically(path, make_recipe(found, found.verdict.recommended))
    return path


def make_table(found: Search, *, num_best: int = 5) -> Table:
    """The default and the best trials for a terminal."""
    kept = found.tuning.metric == "kept_accuracy"
    table = Table(title=f"{found.space.entry.name}: the best of {len(found.trials)} trials")
    paths = list(found.space.distributions)
    value = "kept" if kept else "log-likelihood"
    for name in ("trial", value, "minus default (95 %)", "parameters", "MiB", *paths):
        table.add_column(name, justify="right")
    done = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    done.sort(key=lambda trial: (not fits(trial), -(trial.value or 0.0), trial.number))
    default = found.default
    shown = done[:num_best]
    shown += [trial for trial in done[num_best:] if trial is default]
    for trial in shown:
        measured = trial.user_attrs[MEASURED]
        table.add_row(
            f"{trial.number} (default)" if trial is default else str(trial.number),
            write_value(trial.value, found.tuning),
            write_difference(difference, found.tuning)
            if (difference := found.differences.get(trial.number))
            else "",
            number_format.counted(measured["parameters"]),
            f"{measured['mib']:.3g}" + ("" if fits(trial) else " (over)"),
            *(plots.shorten(write_setting(trial.params.get(path, "-"))) for path in paths),
        )
    return table


def make_confirmed_table(found: Search) -> Table | None:
    """The runs with fresh seeds for a terminal; None where there is none."""
    rows = list_confirmed(found)
    if not rows:
        return None
    table = Table(title=f"trained again with {found.tuning.confirm.seeds} fresh seeds")
    for name in ("trial", "each (seed)", "mean", "minus default (95 %)", "p, Holm"):
        table.add_column(name, justify="right")
    for row in rows:
        name = f"{row.trial} (default)" if row.is_default else str(row.trial)
        table.add_row(name, ", ".join(row.values), row.mean, row.difference, row.adjusted_p)
    return table


def make_csv(found: Search) -> str:
    """One line a trial: its state, value, measures, settings and reason."""
    paths = list(found.space.distributions)
    default = found.default
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("trial", "state", "default", "within_budget", "value", *MEASURES),
            *("difference", "difference_low", "difference_high", "seconds", *paths, "reason"),
        ]
    )
    for trial in found.trials:
        measured = read_measured(trial)
        difference = found.differences.get(trial.number)
        ends = (difference.value, difference.low, difference.high) if difference else [""] * 3
        writer.writerow(
            [
                trial.number,
                STATES[trial.state].en,
                "yes" if trial is default else "no",
                "yes" if fits(trial) else "no",
                trial.value if trial.state == TrialState.COMPLETE else "",
                *(measured.get(name, "") for name in MEASURES),
                *ends,
                f"{seconds(trial):.1f}",
                *(trial.params.get(path, "") for path in paths),
                trial.user_attrs.get("reason", over(trial)),
            ]
        )
    return file.getvalue()


def make_recipe(found: Search, best: FrozenTrial) -> str:
    """The whole recipe with the best trial's values, as `limbeck run` reads it."""
    recipe = found.recipe
    entries = recipe.entries | {found.space.entry.name: found.space.apply(best.params)}
    data: dict[str, Any] = dict(entries)
    if recipe.plan:
        data[PLAN] = recipe.plan
    if recipe.serve:
        data[SERVE] = recipe.serve
    data[TUNE] = recipe.tune
    lines = [
        f"# {recipe.path.name} with the settings of trial {best.number} in "
        f"{found.space.entry.name}:",
        *(f"#   {path}: {value}" for path, value in best.params.items()),
        *(f"# {line}" for line in textwrap.wrap(explain(found).en, width=96)),
    ]
    text = yaml.safe_dump(
        json.loads(json.dumps(data)), allow_unicode=True, sort_keys=False, width=100
    )
    return "\n".join(lines) + "\n\n" + text


def find_importances(found: Search) -> dict[str, float]:
    """The share of the values' variance that each setting explains; empty where too few tell.

    By functional ANOVA over a random forest (Hutter et al. 2014,
    https://proceedings.mlr.press/v32/hutter14.html).
    """
    done = _sampled(found)
    if len(done) < FEWEST_TRIALS or len({trial.value for trial in done}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(done)
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def _sampled(found: Search) -> list[FrozenTrial]:
    """Finished trials that have every setting; the recipe's own may lie outside the space."""
    paths = set(found.space.distributions)
    return [
        trial
        for trial in found.trials
        if trial.state == TrialState.COMPLETE and set(trial.params) == paths
    ]


def render(found: Search) -> str:
    """The page, which needs nothing else."""
    folders = (Path(__file__).parent, Path(html.__file__).parent)
    template = load_template(*folders, name="tuning.html.jinja")
    done = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    sampled, importances = _sampled(found), find_importances(found)
    return template.render(
        found=found,
        best=found.verdict.recommended,
        verdict=explain(found),
        warnings=warn(found),
        confirmed=list_confirmed(found),
        rungs=list_rungs(found.rungs),
        f=number_format,
        bounds=Bounds,
        title=TITLES[found.tuning.metric],
        rows=list_trials(found),
        paths=list(found.space.distributions),
        counts={
            STATES[state]: sum(trial.state == state for trial in found.trials) for state in STATES
        },
        history=Markup(_history(found)) if len(done) > 1 else "",
        parallel=Markup(_parallel(found, sampled)) if len(sampled) > 1 else "",
        importances=Markup(plots.bars(importances)) if importances else "",
        fewest=FEWEST_TRIALS,
    )


def _history(found: Search) -> str:
    """Each finished trial's value, and the best within the budget so far."""
    done = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    values = [(float(trial.number), float(trial.value or 0.0)) for trial in done]
    lead = []
    for index, trial in enumerate(found.trials):
        best = find_best(found.trials[: index + 1])
        if best is not None and best.value is not None:
            lead.append((float(trial.number), float(best.value)))
    series = {"value": values} | ({"best so far" if lead else "": lead} if lead else {})
    heights = [up for _, up in values]
    kept = found.tuning.metric == "kept_accuracy"
    x = charts.fit_axis(
        [left for left, _ in values],
        title=Bilingual("试验", "trial"),
        write=lambda value: f"{value:.0f}",
        limits=(-0.5, float("inf")),
    )
    y = charts.fit_axis(
        heights,
        title=TITLES[found.tuning.metric],
        write=lambda value: number_format.percent(value, digits=0) if kept else f"{value:.3g}",
    )
    return charts.lines(series, x=x, y=y)


def _parallel(found: Search, done: list[FrozenTrial]) -> str:
    """The settings and the value of every finished trial."""
    values = [float(trial.value or 0.0) for trial in done]
    low, high = min(values), max(values)
    scales, columns = [], []
    for item in found.space.dimensions:
        title = Bilingual(item.path, plots.shorten(item.path, most=34))
        column = [trial.params[item.path] for trial in done]
        if isinstance(item.distribution, CategoricalDistribution):
            labels = [label(value) for value in item.values]
            scales.append(plots.Scale(title, plots.spread(labels)))
        else:
            first, last = item.ends()
            is_log = bool(item.distribution.log)  # pyright: ignore[reportAttributeAccessIssue]
            scales.append(plots.Scale(title, None, first, last, is_log))
        columns.append(column)
    scales.append(plots.Scale(TITLES[found.tuning.metric], None, low, high))
    rows = [list(row) for row in zip(*columns, values, strict=True)]
    shares = [(value - low) / (high - low) if high > low else 1.0 for value in values]
    numbers = [trial.number for trial in done]
    recommended = found.verdict.recommended
    number = -1 if recommended is None else recommended.number
    best = numbers.index(number) if number in numbers else -1
    return plots.parallel(rows, scales=scales, shares=shares, best=best)
