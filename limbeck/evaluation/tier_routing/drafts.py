"""What each tier answers to the same questions, and what of it users would see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.tier_router import Draft, finds_foreign
from limbeck.env.seeds import draw_share
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.declined import is_declined


@dataclass(frozen=True)
class TierDrafts:
    """The drafts of all tiers, from the largest to the smallest, to the same questions."""

    drafts: tuple[tuple[Draft, ...], ...]
    is_right: Bool[np.ndarray, "tiers questions"]
    """Right and shown: an answer that the tier itself declines helps nobody."""
    is_foreign: Bool[np.ndarray, " questions"]
    """Where the smallest tier finds a question foreign and the largest cannot tell."""
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, chosen: Int[np.ndarray, " chosen"]) -> "TierDrafts":
        """Some of the questions."""
        return TierDrafts(
            tuple(tuple(tier[place] for place in chosen) for tier in self.drafts),
            self.is_right[:, chosen],
            self.is_foreign[chosen],
            tuple(self.groups[place] for place in chosen),
        )


def collect_drafts(
    answered: Sequence[Sequence[AnsweredQuestion]], *, policies: Sequence[AnswerPolicy]
) -> TierDrafts:
    """The drafts among the tiers' answers: generated ones, of which a service knows as much."""
    places = [place for place, item in enumerate(answered[0]) if item.form != "choice"]
    kept = [[items[place] for place in places] for items in answered]
    drafts = tuple(
        tuple(_as_draft(item, policy=policy) for item in items)
        for items, policy in zip(kept, policies, strict=True)
    )
    is_right = np.array(
        [
            [item.correct and draft.is_shown for item, draft in zip(items, tier, strict=True)]
            for items, tier in zip(kept, drafts, strict=True)
        ],
        dtype=bool,
    )
    is_foreign = [
        finds_foreign(policies[-1], largest=policies[0], question=item.question)
        for item in kept[-1]
    ]
    groups = tuple(item.cluster for item in kept[-1])
    return TierDrafts(
        drafts, is_right.reshape(len(kept), -1), np.array(is_foreign, dtype=bool), groups
    )


def _as_draft(item: AnsweredQuestion, *, policy: AnswerPolicy) -> Draft:
    is_shown = not is_declined(item, policy=policy)
    return Draft(item.question, item.answer, item.confidence_ratio, is_shown)


def split_by_group(
    groups: Sequence[str], *, first_ratio: float, seed: int
) -> tuple[Int[np.ndarray, " first"], Int[np.ndarray, " second"]]:
    """Two parts of the questions that share no group, by a hash, so always the same."""
    shares = np.array([draw_share(group, name=str(seed)) for group in groups])
    is_first = shares < first_ratio
    return np.flatnonzero(is_first), np.flatnonzero(~is_first)


def assign_folds(
    groups: Sequence[str], *, num_folds: int, seed: int
) -> Int[np.ndarray, " questions"]:
    """A fold for each question, the same within a group; the folds are of nearly one size."""
    names = sorted(set(groups), key=lambda group: draw_share(group, name=str(seed)))
    folds: Mapping[str, int] = {name: place % num_folds for place, name in enumerate(names)}
    return np.array([folds[group] for group in groups], dtype=np.int64)


def order_groups(groups: Sequence[str], *, seed: int) -> list[str]:
    """The groups in an order that nothing measured has a part in."""
    return sorted(set(groups), key=lambda group: draw_share(group, name=str(seed)))
