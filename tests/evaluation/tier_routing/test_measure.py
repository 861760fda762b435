"""A router's figures on questions that it never met, beside plain probability and chance."""

import dataclasses
import io
import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.serialization import to_json
from limbeck.contracts.tier_router import (
    NEVER,
    EscalationRule,
    Promise,
    RoutedTier,
    TierRouter,
    TierRouterFile,
)
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.report import terminal
from limbeck.evaluation.report.build import read_report
from limbeck.evaluation.report.html import render_html, render_markdown
from limbeck.evaluation.tier_routing.drafts import collect_drafts
from limbeck.evaluation.tier_routing.fit import fit_tiers
from limbeck.evaluation.tier_routing.measure import (
    accuracy_by_share,
    compare_methods,
    route_answers,
)

COUNT = 400


def make_answers(seed):
    """The small model is right where the text is of one kind, and as sure of the other."""
    rng = np.random.default_rng(seed)
    found = {"teacher": [], "small": []}
    for number in range(COUNT):
        kind = int(rng.integers(0, 2))
        question = f"{('哮喘看哪个科', '高血压吃什么药')[kind]}{number}"
        right = {"teacher": rng.uniform() < 0.8, "small": kind == 1}
        for name, items in found.items():
            items.append(
                AnsweredQuestion(
                    *(str(number), "recall", "single", question, ("对",), "", f"g{number}"),
                    *("对" if right[name] else "错", bool(right[name]), float(right[name])),
                    *(float(rng.uniform(0.2, 1)), ()),
                )
            )
    return found


def make_router(*, rule):
    answers = make_answers(0)
    drafts = collect_drafts([answers["teacher"], answers["small"]], policies=[AnswerPolicy()] * 2)
    models, _ = fit_tiers(drafts, seed=0)
    file = TierRouterFile(
        tiers=(
            RoutedTier(name="cloud", content_hash="t"),
            RoutedTier(name="mobile", content_hash="s", gain=models.after[0].gain),
        ),
        before=models.before.gain,
        rule=rule,
        promise=Promise(
            min_kept_ratio=0.99,
            max_error_ratio=0.1,
            num_fitted=1,
            num_certified=1,
            num_groups=1,
            p_value=0.01,
            is_certified=True,
        ),
    )
    return TierRouter(file, models.weights())


def measure(answers, *, rule, hashes=None):
    return route_answers(
        make_router(rule=rule),
        answers=answers,
        policies=dict.fromkeys(answers, AnswerPolicy()),
        content_hashes=hashes or {"teacher": "t", "small": "s"},
        tasks=["recall"],
    )


def test_a_router_that_reads_the_question_beats_both_baselines():
    found = measure(make_answers(1), rule=EscalationRule(min_gain=0.0, min_gain_before=NEVER))
    assert found.accuracy.value > 0.85 > found.tiers[0].accuracy.value > 0.7
    assert found.kept.value > 1.05
    assert 0.4 < found.largest_ratio.value < 0.6
    assert sum(tier.answered_ratio for tier in found.tiers) == 1
    router, log_prob, random = found.methods.values()
    assert log_prob.router_gain.low > 0.05 and random.router_gain.low > 0.05
    assert router.recovered_ratio > 0.9 > random.recovered_ratio == pytest.approx(0.5)
    assert router.least_ratio < random.least_ratio


def test_all_methods_agree_at_both_ends():
    found = measure(make_answers(1), rule=EscalationRule(min_gain=0.0, min_gain_before=NEVER))
    for item in found.methods.values():
        assert item.accuracy[0] == pytest.approx(found.tiers[1].accuracy.value)
        assert item.accuracy[-1] == pytest.approx(found.tiers[0].accuracy.value)


def test_no_gap_leaves_nothing_to_recover():
    answers = make_answers(1)
    answers["small"] = answers["teacher"]
    drafts = collect_drafts([answers["teacher"], answers["small"]], policies=[AnswerPolicy()] * 2)
    found = compare_methods(np.zeros(COUNT), drafts, min_kept_ratio=0.99)
    assert all(item.recovered_ratio is None for item in found.values())
    assert all(item.least_ratio == 0 for item in found.values())


def test_choices_are_left_out_and_other_tasks_do_not_count():
    answers = make_answers(1)
    for items in answers.values():
        items[0] = dataclasses.replace(items[0], form="choice")
        items[1] = dataclasses.replace(items[1], task="triage")
    found = measure(answers, rule=EscalationRule(min_gain=0.0, min_gain_before=NEVER))
    assert found.num_left_out == 1
    assert found.accuracy.count == COUNT - 2


def test_a_tier_that_is_not_in_the_report_is_named():
    with pytest.raises(ArtifactError, match="'mobile' is none of the models teacher, other"):
        measure(
            make_answers(1),
            rule=EscalationRule(min_gain=0.0, min_gain_before=NEVER),
            hashes={"teacher": "t", "other": "o"},
        )


def test_of_equal_questions_a_part_of_each_goes_up():
    """Whatever order they stand in."""
    own, largest = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0, 1.0])
    found = accuracy_by_share(np.zeros(4), own=own, largest=largest)
    assert found.tolist() == pytest.approx(np.linspace(0.5, 0.75, 21).tolist())
    best = accuracy_by_share(largest - own, own=own, largest=largest)
    assert best.max() == 1 and best[10] == 1


def test_every_page_of_a_report_shows_the_router():
    """The committed demo's report, with a router between two of its rows."""
    folder = Path(__file__).parents[3] / "benchmarks" / "results" / "demo"
    report = read_report(folder / "report.json")
    assert terminal.make_routing_table(dataclasses.replace(report, routing=None)) is None
    routing = measure(make_answers(1), rule=EscalationRule(min_gain=0.0, min_gain_before=NEVER))
    report = dataclasses.replace(report, routing=routing)
    screen = Console(file=io.StringIO(), width=160, record=True)
    screen.print(terminal.make_routing_table(report))
    answers = {row.name: [] for row in report.rows}
    pages = [screen.export_text(), render_markdown(report)]
    pages.append(render_html(report, answers=answers, steps=[]))
    for page in pages:
        assert "99.0% of the largest tier's accuracy" in " ".join(unescape(page).split())
        assert "cloud" in page and "mobile" in page
    assert "least log-probability" in pages[1] and "least log-probability" in pages[2]
    assert json.loads(json.dumps(to_json(report)))["routing"]["tiers"][0]["name"] == "cloud"
