"""`report.md`: a search as plain tables."""

from collections.abc import Iterable

from limbeck.tuning.outcome import Search
from limbeck.tuning.summary import explain, list_confirmed, list_rungs, list_trials, warn


def render(found: Search) -> str:
    """The verdict, the confirming runs, the rungs, and every trial."""
    accuracy = found.tuning.metric == "kept_accuracy"
    measure = "kept" if accuracy else "log-likelihood"
    paths = list(found.space.distributions)
    parts = [
        f"# {found.space.entry.name}: {len(found.trials)} trials",
        explain(found).en,
    ]
    confirmed = list_confirmed(found)
    if confirmed:
        parts += [
            "## Confirmed with fresh seeds",
            _table(
                ["trial", f"{measure} (seed)", "mean", "minus default (95 %)", "p, Holm"],
                (
                    [
                        f"{row.trial}{' (default)' if row.is_default else ''}",
                        ", ".join(row.values),
                        row.mean,
                        row.difference,
                        row.adjusted_p,
                    ]
                    for row in confirmed
                ),
            ),
        ]
    if found.rungs:
        rows = ([share, str(count), *rest] for share, count, *rest in list_rungs(found.rungs))
        parts += [
            "## Do short trials tell the end?",
            _table(["likelihood at", "n", "Spearman (95 %)", "Kendall"], rows),
            *(item.en for item in warn(found)),
        ]
    parts += [
        "## Trials",
        "One seed each: the intervals are those of the questions alone.",
        _table(
            ["trial", "state", measure, "minus default (95 %)", *paths, "reason"],
            (
                [
                    f"{row['number']}{' (default)' if row['default'] else ''}",
                    row["state"].en,
                    row["value"],
                    row["difference"],
                    *(row["params"].get(path, "-") for path in paths),
                    row["reason"],
                ]
                for row in list_trials(found)
            ),
        ),
    ]
    if accuracy:
        parts.append(
            f"Kept: accuracy over the teacher's ({found.teacher_accuracy:.1%}) on the same "
            f"{found.num_questions} validation records. Differences are points of accuracy."
        )
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
