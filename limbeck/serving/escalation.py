"""Which tiers `auto` asks, in which order, and whether a tier's answer is kept.

By the router where it was fitted on these very models; otherwise by each tier's own confidence.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from limbeck.contracts.tier_router import Draft, TierRouter, finds_foreign
from limbeck.serving.cascade import UpReason
from limbeck.serving.engine.messages import Finished, Piece
from limbeck.serving.tier import Tier

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """The tiers in the order in which they are asked, and why the first one is."""

    names: tuple[str, ...]
    reason: UpReason


@final
class Escalation:
    """The way up through the tiers."""

    def __init__(self, tiers: Mapping[str, Tier], *, router: TierRouter | None) -> None:
        self._tiers = tiers
        names = list(tiers)
        self._largest, self._smallest = names[0], names[-1]
        keys = [tier.model_key for tier in tiers.values()]
        self._router = router if router is not None and router.knows(keys) else None
        if router is not None and self._router is None:
            logger.warning(
                "the router was fitted on other models than these tiers serve; until one of these "
                "is served, `auto` goes by each tier's own confidence"
            )

    def order(self, question: str) -> Order:
        """The tiers that a question of `auto` may come to."""
        smallest_first = tuple(self._tiers)[::-1]
        if self._router is None:
            open_ = tuple(name for name in smallest_first if self._tiers[name].is_open_to_auto)
            return Order(open_ or smallest_first[:1], "smallest tier")
        smallest, largest = (self._tiers[name] for name in (self._smallest, self._largest))
        if finds_foreign(smallest.policy, largest=largest.policy, question=question):
            return Order(smallest_first[:1], "smallest tier")
        if self._router.passes_over(question):
            # The others stand in for the largest, from the smallest on.
            return Order((self._largest, *smallest_first[:-1]), "escalated")
        return Order(smallest_first, "smallest tier")

    def always_keeps(self, name: str) -> bool:
        """Whether no larger tier is asked whatever a tier answers."""
        return self._router is not None and name == self._largest

    def keeps(self, name: str, *, question: str, held: Sequence[Piece | Finished]) -> bool:
        """Whether no larger tier is asked after a tier's answers to a question."""
        tier, ends = self._tiers[name], [item for item in held if isinstance(item, Finished)]
        if self._router is None:
            return all(map(tier.is_sure, ends))
        if self.always_keeps(name):
            return True
        drafts = [
            Draft(
                question,
                "".join(
                    item.text
                    for item in held
                    if isinstance(item, Piece) and item.choice == end.choice
                ),
                end.confidence_ratio or 0.0,
                is_shown=tier.is_sure(end),
            )
            for end in ends
        ]
        return not any(self._router.goes_up(tier.model_key, draft) for draft in drafts)
