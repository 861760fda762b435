"""Tiers and validation questions to a router, with what can be promised of it."""

import dataclasses
from collections.abc import Sequence

from limbeck.contracts.answer_policy import read_policy
from limbeck.contracts.answerer import apply_here
from limbeck.contracts.artifacts import Artifact, Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.lineage import trace_lineage
from limbeck.contracts.records import Question, write_jsonl
from limbeck.contracts.tier_router import (
    TO_LARGEST,
    Promise,
    RoutedTier,
    TierRouter,
    TierRouterFile,
)
from limbeck.evaluation.answer_questions import answer_with_each, check_unique
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.evaluation.metrics import accuracy_ratio
from limbeck.evaluation.tier_routing.certify import Part, choose_rule, try_rules
from limbeck.evaluation.tier_routing.drafts import TierDrafts, collect_drafts, split_by_group
from limbeck.evaluation.tier_routing.fit import fit_tiers
from limbeck.evaluation.tier_routing.rules import make_rules, routed_right
from limbeck.runtimes import open_answerer
from limbeck.stages.config.route import Config

LEAST_GROUPS = 20
"""In each part; with fewer, nothing can be fitted, nor shown at any sensible error ratio."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the router and the drafts that it comes from; its promise.

    Raises:
        ArtifactError: two tiers have one name.
        DataError: the corpus has no validation questions.
        LeakError: a tier was trained on one of them.
    """
    tiers, corpus = work.every("tiers"), Corpus(work.one("corpus").path)
    questions = read_held_out(corpus, max_questions=config.max_questions)
    check_unique(tiers)
    _check_unseen(tiers, questions=questions)
    answers = answer_with_each(
        tiers,
        questions,
        open_model=lambda tier: apply_here(
            open_answerer(tier.path, num_threads=config.num_threads, num_rows=config.batch_size)
        ),
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        state=work.state,
        title="route",
    )
    answered = [answers[tier.name] for tier in tiers]
    drafts = collect_drafts(answered, policies=[read_policy(tier.path) for tier in tiers])
    router = make_router(drafts, config=config, tiers=tiers)
    router.write(work.folder)
    (work.folder / "drafts").mkdir()
    for tier, items in zip(tiers, answered, strict=True):
        write_jsonl(work.folder / "drafts" / f"{tier.name}.jsonl", map(dataclasses.asdict, items))
    inputs = {tier.name: tier.gain.inputs for tier in router.file.tiers if tier.gain}
    return {"promise": router.file.promise.model_dump(), "inputs": inputs}


def make_router(drafts: TierDrafts, *, config: Config, tiers: Sequence[Artifact]) -> TierRouter:
    """The router of some drafts: one part of the groups fits it, the other certifies its rule."""
    fitted, certified = (
        drafts.take(chosen)
        for chosen in split_by_group(drafts.groups, first_ratio=config.fit_ratio, seed=config.seed)
    )
    promise = Promise(
        min_kept_ratio=config.min_kept_ratio,
        max_error_ratio=config.max_error_ratio,
        num_fitted=len(fitted),
        num_certified=len(certified),
        num_groups=len(set(certified.groups)),
    )
    routed = [RoutedTier(name=tier.name, content_hash=tier.manifest.content_hash) for tier in tiers]
    file = TierRouterFile(tiers=tuple(routed), promise=promise)
    fewest = min(len(set(part.groups)) for part in (fitted, certified))
    if fewest < LEAST_GROUPS:
        reason = (
            f"{fewest} groups of validation questions to fit or to certify, expected at least "
            f"{LEAST_GROUPS}; hold more out with splits.validation_ratio"
        )
        return TierRouter(file.replace(promise=promise.replace(reason=reason)), {})
    models, cross_validated = fit_tiers(fitted, seed=config.seed)
    part = Part(certified, models.compute(certified))
    tested = try_rules(
        make_rules(cross_validated),
        fitted=Part(fitted, cross_validated),
        certified=part,
        min_kept_ratio=config.min_kept_ratio,
        max_error_ratio=config.max_error_ratio,
        seed=config.seed,
    )
    chosen = choose_rule(tested, max_error_ratio=config.max_error_ratio)
    rule = chosen.rule if chosen else tested[0].rule
    found = part.assign(rule)
    kept = accuracy_ratio(
        correct=routed_right(certified.is_right, tiers=found),
        reference=certified.is_right[0],
        groups=certified.groups,
    )
    file = file.replace(
        tiers=tuple(
            tier.replace(gain=None if place == 0 else models.after[place - 1].gain)
            for place, tier in enumerate(routed)
        ),
        before=models.before.gain,
        rule=rule if chosen else TO_LARGEST,
        promise=promise.replace(
            is_certified=chosen is not None,
            p_value=tested[0].p_value if chosen is None else chosen.p_value,
            kept_ratio=None if kept is None else kept.value,
            largest_ratio=float((found == 0).mean()),
        ),
        tested=tuple(tested),
    )
    return TierRouter(file, models.weights())


def _check_unseen(tiers: Sequence[Artifact], *, questions: Sequence[Question]) -> None:
    """Nothing, when no corpus that any tier comes from trains on one of the questions."""
    for root in trace_lineage(tiers):
        for ancestor in root.sources_first():
            if ancestor.kind == "corpus" and ancestor.artifact is not None:
                corpus = Corpus(ancestor.artifact.path)
                check_leaks(
                    corpus.records("train"), held_out=questions, path=corpus.records_path("train")
                )
