"""What a search found, in words and rows that every form of its report shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from limbeck.evaluation.report import number_format
from limbeck.evaluation.report.charts import Bilingual
from limbeck.tuning import plots
from limbeck.tuning.comparison import Difference
from limbeck.tuning.config import Tuning
from limbeck.tuning.fidelity import LEAST, Rung
from limbeck.tuning.outcome import MEASURED, Search, describe, over

STATES = {
    TrialState.COMPLETE: Bilingual("完成", "finished"),
    TrialState.PRUNED: Bilingual("提前停止", "stopped early"),
    TrialState.FAIL: Bilingual("失败", "failed"),
}


@dataclass(frozen=True)
class ConfirmedRow:
    """One setting's runs with fresh seeds."""

    trial: int
    is_default: bool
    values: tuple[str, ...]
    """One for each seed."""
    mean: str
    difference: str
    """From the default; empty for the default."""
    adjusted_p: str
    better: bool


def explain(found: Search) -> Bilingual:
    """The verdict in one paragraph."""
    verdict, confirm = found.verdict, found.tuning.confirm
    number = -1 if verdict.recommended is None else verdict.recommended.number
    seeds, recipe = confirm.seeds, found.recipe.path.name
    if verdict.kind == "better":
        gain = next(item.difference for item in verdict.comparisons if item.trial == number)
        shown = write_difference(gain, found.tuning)
        return Bilingual(
            f"试验 {number} 的设置优于配方自身的设置：{shown}，{seeds} 个新种子，"
            "经 Holm 校正后 p < 0.05。",
            f"The settings of trial {number} are better than the recipe's own: {shown} over "
            f"{seeds} fresh seeds, p < 0.05 after Holm's correction.",
        )
    if verdict.kind == "none_better" and not verdict.comparisons:
        return Bilingual(
            f"没有设置被证明优于配方自身的设置：没有一次试验值得用新种子复核。请保留 {recipe}。",
            "No setting is shown to be better than the recipe's own: no trial was worth confirming "
            f"with fresh seeds. Keep {recipe} as it is.",
        )
    if verdict.kind == "none_better":
        num = len(verdict.comparisons)
        return Bilingual(
            f"没有设置被证明优于配方自身的设置：用新种子复核了 {num} 个候选，"
            f"经 Holm 校正均不显著。请保留 {recipe}。",
            f"No setting is shown to be better than the recipe's own: {num} confirmed with fresh "
            f"seeds, none with a gain at p < 0.05 after Holm's correction. Keep {recipe} as it is.",
        )
    texts = {
        "unfinished": Bilingual(
            "搜索未完成，尚无结论；再次运行同一命令即可继续。",
            "The search is not finished, so nothing is shown yet; the same command goes on. Until "
            "then the recipe's own settings stay.",
        ),
        "unstable": Bilingual(
            "配方自身的设置换种子后训练失败，无从比较。",
            "The recipe's own settings fail with other seeds, so nothing can be compared with "
            "them; mend them first.",
        ),
        "no_reference": Bilingual(
            f"配方自身的设置失败或超出预算；试验 {number} 是预算之内得分最高的，"
            "未与其比较，也未复核，其分数可能偏乐观。",
            f"The recipe's own settings failed or exceed the budget. Trial {number} has the "
            "highest score within it; it is compared with nothing and not confirmed, and its "
            "score is flattered by having been picked.",
        ),
        "nothing": Bilingual("没有试验在预算之内完成。", "No trial finished within the budget."),
    }
    return texts[verdict.kind]


def warn(found: Search) -> list[Bilingual]:
    """What makes the choice of trials doubtful: rungs that do not tell the end."""
    texts = {
        "unknown": Bilingual(
            "跑到终点的试验太少，无法判断该处的名次是否可信",
            "too few trials ran to the end to tell whether its order can be trusted",
        ),
        "low": Bilingual(
            f"名次相关低于 {LEAST}，不足以据此选择；请改用 pruner: {{kind: none}} 或更多步数",
            f"its rank correlation is below {LEAST}, too low to choose by; use "
            "`pruner: {kind: none}`",
        ),
        "unclear": Bilingual(
            "名次相关的区间包含 0，不能据此选择",
            "the interval of its rank correlation holds zero, so it is not shown to tell the end",
        ),
    }
    found_warnings = []
    for rung in found.rungs:
        if rung.outcome in texts:
            share, text = f"{rung.share:.0%}", texts[rung.outcome]
            found_warnings.append(
                Bilingual(
                    f"训练到 {share} 时的似然：{text.zh}（n = {rung.num_trials}）。",
                    f"Likelihood at {share} of the steps: {text.en} (n = {rung.num_trials}).",
                )
            )
    return found_warnings


def list_confirmed(found: Search) -> list[ConfirmedRow]:
    """The runs with fresh seeds, the default's first."""
    default = found.default
    numbers = sorted({run.trial for run in found.runs})
    if default is not None and default.number in numbers:
        numbers.remove(default.number)
        numbers.insert(0, default.number)
    compared = {item.trial: item for item in found.verdict.comparisons}
    rows = []
    for number in numbers:
        runs = [run for run in found.runs if run.trial == number]
        known = [run.value for run in runs if run.value is not None]
        item = compared.get(number)
        rows.append(
            ConfirmedRow(
                number,
                default is not None and number == default.number,
                tuple(f"{write_value(run.value, found.tuning)} (+{run.shift})" for run in runs),
                write_value(sum(known) / len(known), found.tuning) if known else "-",
                "" if item is None else write_difference(item.difference, found.tuning),
                "" if item is None else f"{item.adjusted_p:.3f}",
                item is not None and item.better,
            )
        )
    return rows


def list_trials(found: Search) -> list[dict[str, Any]]:
    """Every trial with its figures, settings and difference from the default."""
    return [_row(found, trial) for trial in found.trials]


def _row(found: Search, trial: FrozenTrial) -> dict[str, Any]:
    measured = read_measured(trial)
    finished = trial.state == TrialState.COMPLETE
    default, recommended = found.default, found.verdict.recommended
    difference = found.differences.get(trial.number)
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "default": default is not None and trial.number == default.number,
        "won": recommended is not None and trial.number == recommended.number,
        "value": write_value(trial.value, found.tuning) if finished else number_format.MISSING,
        "low": measured.get("kept_low"),
        "high": measured.get("kept_high"),
        "difference": "" if difference is None else write_difference(difference, found.tuning),
        "likelihood": measured.get("log_likelihood"),
        "parameters": measured.get("parameters"),
        "mib": measured.get("mib"),
        "latency_ms": measured.get("latency_ms"),
        "seconds": seconds(trial),
        "params": {path: write_setting(value) for path, value in trial.params.items()},
        "reason": trial.user_attrs.get("reason", over(trial)),
    }


def list_rungs(rungs: Sequence[Rung]) -> list[tuple[str, int, str, str]]:
    """Of each rung its share, trials, Spearman's with interval, and Kendall's correlation."""
    rows = []
    for rung in rungs:
        item = rung.correlation
        spearman = f"{item.spearman:+.2f} ({item.low:+.2f} to {item.high:+.2f})" if item else "-"
        kendall = f"{item.kendall:+.2f}" if item else "-"
        rows.append((f"{rung.share:.0%}", rung.num_trials, spearman, kendall))
    return rows


def read_measured(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's figures; of one that was stopped, the likelihood where it was measured last."""
    values = trial.intermediate_values
    last = {"log_likelihood": values[max(values)]} if values else {}
    return last | trial.user_attrs.get(MEASURED, {})


def write_difference(item: Difference | None, tuning: Tuning) -> str:
    """A difference with its 95 % interval, in points of accuracy or nats a token."""
    if item is None:
        return "failed"
    scale, unit, digits = (100, "points", 1) if tuning.metric == "kept_accuracy" else (1, "nats", 4)
    value, low, high = (f"{scale * part:+.{digits}f}" for part in (item.value, item.low, item.high))
    return f"{value} {unit} ({low} to {high})"


def write_value(value: float | None, tuning: Tuning) -> str:
    """A value as `describe` writes it, without its name."""
    return describe(value, tuning).split()[-1]


def write_setting(value: Any) -> str:
    """A setting's value, shortened."""
    return f"{value:.4g}" if isinstance(value, float) else plots.shorten(str(value), most=60)


def seconds(trial: FrozenTrial) -> float:
    """How long a trial took."""
    duration = trial.duration
    return duration.total_seconds() if duration is not None else 0.0
