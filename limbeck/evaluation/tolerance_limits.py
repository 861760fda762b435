"""How much of a population lies beyond a limit that was drawn through a sample of it.

Distribution-free tolerance limits: of n drafts, k of which lie beyond the limit, the share of all
drafts that does is at most r with a certainty that the binomial distribution alone gives (Wilks
1941, doi:10.1214/aoms/1177731788; the bound is that of Clopper and Pearson 1934).
"""

import math

CERTAINTY_RATIO = 0.95
"""Of samples, for which the share that they promise is kept."""
BISECTIONS = 60


def most_beyond(count: int, *, share_ratio: float) -> int:
    """Most of so many observations that may lie beyond a limit; -1 where even none is too many.

    At most `share_ratio` of the population then does, at `CERTAINTY_RATIO`.
    """
    total, beyond = 0.0, -1
    for place in range(count + 1):
        total += _binomial(place, count=count, share_ratio=share_ratio)
        if total > 1 - CERTAINTY_RATIO:
            break
        beyond = place
    return beyond


def upper_share(beyond: int, *, count: int) -> float:
    """The largest share of the population beyond a limit, at `CERTAINTY_RATIO`."""
    if beyond >= count:
        return 1.0
    low, high = beyond / count, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = math.fsum(
            _binomial(place, count=count, share_ratio=middle) for place in range(beyond + 1)
        )
        low, high = (middle, high) if below > 1 - CERTAINTY_RATIO else (low, middle)
    return high


def _binomial(place: int, *, count: int, share_ratio: float) -> float:
    if not 0 < share_ratio < 1:
        return float(place == (count if share_ratio else 0))
    log_choices = math.lgamma(count + 1) - math.lgamma(place + 1) - math.lgamma(count - place + 1)
    return math.exp(
        log_choices + place * math.log(share_ratio) + (count - place) * math.log1p(-share_ratio)
    )
