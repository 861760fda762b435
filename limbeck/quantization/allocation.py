"""Which format each layer gets under a limit of bytes: the most quality for the next byte, first.

Of every layer those formats count that lie on the lower convex hull of cost over bytes, so that
each further step of a layer gains less a byte than the one before. All steps are taken in the order
of what they gain a byte, as far as bytes are left: the solution of the knapsack's relaxation
(Dantzig 1957, doi:10.1287/opre.5.2.266), one step of one layer at most away from the best.
Costs of layers are added up. Left out: how they are measured (`models/mixed_precision`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """What a layer would take and lose in one format."""

    num_bytes: int
    cost: float


def allocate(options: Mapping[str, Sequence[Option]], *, max_bytes: int) -> dict[str, int]:
    """The option of each layer, by its index, with the least sum of costs within so many bytes.

    Every layer starts at its first option, whatever that takes, and only goes to dearer ones.
    """
    chosen = dict.fromkeys(options, 0)
    steps = [
        (_gain(items[before], items[after]), name, before, after)
        for name, items in options.items()
        for before, after in _walk_hull(items)
    ]
    left = max_bytes - sum(items[0].num_bytes for items in options.values())
    for _, name, before, after in sorted(steps, key=lambda step: (-step[0], step[1:])):
        more = options[name][after].num_bytes - options[name][before].num_bytes
        if chosen[name] == before and more <= left:  # else an earlier step had no room
            chosen[name] = after
            left -= more
    return chosen


def _walk_hull(options: Sequence[Option]) -> list[tuple[int, int]]:
    """Steps from the first option on, each to the one that gains most a byte."""
    found, place = [], 0
    while True:
        better = [
            index
            for index, item in enumerate(options)
            if item.num_bytes > options[place].num_bytes and item.cost < options[place].cost
        ]
        if not better:
            return found
        after = max(better, key=lambda index: _gain(options[place], options[index]))
        found.append((place, after))
        place = after


def _gain(before: Option, after: Option) -> float:
    """Cost a byte."""
    return (before.cost - after.cost) / (after.num_bytes - before.num_bytes)
