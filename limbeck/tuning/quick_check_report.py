"""A quick check as a page of Markdown, as JSON, and as one sentence."""

import json
from collections.abc import Sequence
from pathlib import Path

from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.metrics import Share
from limbeck.tuning.quick_check import Arm, GainEstimate, QuickCheck


def write_quick_check(found: QuickCheck, *, folder: Path) -> Path:
    """Write `quick-check.json` and `quick-check.md`; the page's path."""
    text = json.dumps(to_data(found), indent=1, ensure_ascii=False)
    (folder / "quick-check.json").write_text(text, encoding="utf-8")
    page = folder / "quick-check.md"
    page.write_text(make_page(found), encoding="utf-8")
    return page


def make_page(found: QuickCheck) -> str:
    """The table, the difference, what it cost, and the sentence."""
    rows = [("teacher", _share(found.teacher), "", "")] if found.teacher else []
    rows += [
        (arm.name, _accuracy(arm), f"{_nats(arm):.3f}", f"{arm.seconds:.0f} s")
        for arm in found.arms
    ]
    rows += [
        (f"floor: {name}", _share(item) if isinstance(item, Share) else f"none ({item})", "", "")
        for name, item in found.floors.items()
    ]
    lines = [
        f"# Quick check of `{found.entry}`",
        "",
        f"{found.steps} of {found.recipe_steps or '?'} steps, {_plural(found.num_seeds, 'seed')}, "
        f"{found.num_compared} validation {_unit(found)}s; no test record was read.",
        "",
        "| | right (95 %) | validation loss, nats/token | training |",
        "| --- | --- | ---: | ---: |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if found.accuracy is not None:
        lines.append(f"Accuracy, with the teacher minus labels alone: {points(found.accuracy)}.")
    lines += [
        f"Log-likelihood, the same: {_bounds(found.likelihood, digits=3)} nats a token.",
        f"It took {found.seconds:.0f} s beside what the recipe makes before the student.",
        "",
        f"**{make_sentence(found)}**",
        "",
    ]
    return "\n".join(lines)


def make_sentence(found: QuickCheck) -> str:
    """What the check says, in one sentence."""
    item, unit = found.decisive, _unit(found)
    size = points(item) if found.accuracy else f"{_bounds(item, digits=3)} nats a token"
    at = f"after {found.steps} steps, {_plural(found.num_seeds, 'seed')}, n={found.num_compared}"
    if found.verdict == "pays":
        return f"Distillation pays here: {size} ({at})."
    if found.verdict == "does not pay":
        return f"Distillation does not pay here: {size} ({at})."
    if found.accuracy and not any(q.correct for arm in found.arms for r in arm.answered for q in r):
        advice = (
            "no student answers a question right yet: raise --steps, or set tune.metric=likelihood"
        )
    elif item.num_needed:
        advice = f"about {item.num_needed:,} {unit}s would tell a difference of this size from none"
    else:
        advice = f"more {unit}s alone would not tell: more seeds or steps may"
    return f"It cannot be told at this size: {size} ({at}); {advice}."


def to_data(found: QuickCheck) -> dict[str, object]:
    """Everything but the answers, as JSON."""
    return {
        "entry": found.entry,
        "metric": found.metric,
        "steps": found.steps,
        "recipe_steps": found.recipe_steps,
        "seeds": found.num_seeds,
        "compared": found.num_compared,
        "teacher": vars(found.teacher) if found.teacher else None,
        "floors": {
            name: vars(item) if isinstance(item, Share) else item
            for name, item in found.floors.items()
        },
        "students": {
            arm.name: {
                "accuracies": [_mean_right(run) for run in arm.answered],
                "validation_losses": [sum(x.sums) / sum(x.counts) for x in arm.losses],
                "seconds": arm.seconds,
            }
            for arm in found.arms
        },
        "accuracy_difference": vars(found.accuracy) if found.accuracy else None,
        "likelihood_difference": vars(found.likelihood),
        "verdict": found.verdict,
        "sentence": make_sentence(found),
        "seconds": found.seconds,
    }


def points(item: GainEstimate) -> str:
    """A difference of shares in points, with its interval."""
    return f"{100 * item.value:+.1f} points ({100 * item.low:+.1f} to {100 * item.high:+.1f})"


def _bounds(item: GainEstimate, *, digits: int) -> str:
    return f"{item.value:+.{digits}f} ({item.low:+.{digits}f} to {item.high:+.{digits}f})"


def _share(item: Share | None) -> str:
    return "" if item is None else f"{item.value:.1%} ({item.low:.1%} to {item.high:.1%})"


def _accuracy(arm: Arm) -> str:
    """The mean over seeds, and each seed's where there are several."""
    each = [_mean_right(run) for run in arm.answered]
    if not each:
        return ""
    shown = f" ({', '.join(f'{value:.1%}' for value in each)})" if len(each) > 1 else ""
    return f"{sum(each) / len(each):.1%}{shown}"


def _mean_right(run: Sequence[AnsweredQuestion]) -> float:
    return sum(item.correct for item in run) / max(1, len(run))


def _nats(arm: Arm) -> float:
    return sum(sum(item.sums) / sum(item.counts) for item in arm.losses) / len(arm.losses)


def _unit(found: QuickCheck) -> str:
    return "question" if found.accuracy is not None else "record"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
