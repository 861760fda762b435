"""Scores and their uncertainty, as pure functions of texts, counts and arrays."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from limbeck.contracts.leaks import MINUS, to_compatible
from limbeck.evaluation.quantities import COMMA_LANGUAGES, answer_key
from limbeck.evaluation.structured_answers import json_items

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the standard normal distribution."""
_ALWAYS = r"[、，､;；。｡،؛।\n\r\t]"
SEPARATORS = {
    "point": re.compile(rf"(?:{_ALWAYS}|,(?!(?<=\d,)\d{{3}}(?!\d)))+"),
    "comma": re.compile(rf"(?:{_ALWAYS}|,(?!(?<=\d,)\d))+"),
}
"""By the decimal mark."""
NUM_SAMPLES = 2000
"""Of a bootstrap."""
CONJUNCTIONS = re.compile(r"以及|和|及|与")


@dataclass(frozen=True)
class Share:
    """A share of `count` questions, with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Interval:
    """A measured ratio with its 95 % interval."""

    value: float
    low: float
    high: float


def exact_match(answer: str, *, expected: Sequence[str], language: str = "") -> bool:
    """Whether the answer equals one of the expected texts, its numbers and units as quantities."""
    found = _whole_key(answer, language=language)
    return bool(found) and found in {_whole_key(item, language=language) for item in expected}


def _whole_key(text: str, *, language: str) -> str:
    """The key of an answer; the text itself where it is signs alone, such as a check mark."""
    return answer_key(text, language=language) or text.strip()


def same_label(answer: str, *, expected: Sequence[str]) -> bool:
    """Whether the answer is one of the labels, whole: only case and width do not count."""
    found = label_key(answer)
    return bool(found) and found in set(map(label_key, expected))


def label_key(text: str) -> str:
    """What two labels share when they are one."""
    return to_compatible(text).replace(MINUS, "-").casefold().strip()


def split_items(answer: str, *, known: Collection[str], language: str = "") -> set[str]:
    """The items of a list answer, each by its key.

    Separators always divide. A conjunction divides only a piece whose key is not itself in `known`,
    because a name may hold the same character: 血氧饱和度.
    """
    items: set[str] = set()
    for piece in _split(answer, language=language):
        whole = answer_key(piece, language=language)
        parts = [piece] if whole in known else CONJUNCTIONS.split(piece)
        items.update(answer_key(part, language=language) for part in parts)
    return items - {""}


def _split(text: str, *, language: str) -> list[str]:
    """The text at its separators; a comma inside a number is none."""
    return SEPARATORS["comma" if language in COMMA_LANGUAGES else "point"].split(text)


def entity_f1(answer: str, *, expected: Sequence[str], language: str = "") -> float:
    """F1 of the set of items in a list answer against the set of expected items.

    Where JSON is expected, an answer that is no JSON holds no item; two empty lists agree.
    """
    structured = json_items(expected[0], language=language) if len(expected) == 1 else None
    if structured is not None:
        given = json_items(answer, language=language)
        if given is None:
            return 0.0
        size = len(given) + len(structured)
        return 2 * len(given & structured) / size if size else 1.0
    items = {
        answer_key(part, language=language)
        for item in expected
        for part in _split(item, language=language)
    } - {""}
    found = split_items(answer, known=items, language=language)
    hits = len(found & items)
    return 2 * hits / (len(found) + len(items)) if hits else 0.0


def wilson_interval(correct: int, count: int) -> Share:
    """The share of correct answers with its 95 % interval (Wilson 1927).

    Centre and half width are those of the score test; unlike the normal approximation the
    interval stays inside 0 to 1 and is not empty at 0 or at `count`. No question: 0 to 1.
    """
    assert 0 <= correct <= count, (correct, count)
    if count == 0:
        return Share(0.0, 0.0, 1.0, 0)
    return _score_interval(correct / count, effective=float(count), count=count)


def clustered_interval(*, correct: Bool[np.ndarray, " questions"], groups: Sequence[str]) -> Share:
    """The share of correct answers; questions of one group are right or wrong together.

    Wilson's interval for as many independent questions as would vary as much (Korn and Graubard
    1998, Survey Methodology 24(2)): the count divided by the design effect, which is the clustered
    variance of the share over the binomial one, at least 1. Where all answers agree, no variance
    tells, and the groups are counted.
    """
    count = len(correct)
    if count == 0:
        return wilson_interval(0, 0)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(inverse.max()) + 1
    share = float(correct.mean())
    effective = float(num_groups)
    if 0 < share < 1 and num_groups > 1:
        residuals = np.bincount(inverse, weights=correct - share, minlength=num_groups)
        clustered = np.square(residuals).sum() * num_groups / (num_groups - 1) / count**2
        effective = count / max(1.0, clustered / (share * (1 - share) / count))
    return _score_interval(share, effective=effective, count=count)


def _score_interval(share: float, *, effective: float, count: int) -> Share:
    square = Z_95**2
    centre = (share + square / (2 * effective)) / (1 + square / effective)
    spread = math.sqrt(share * (1 - share) / effective + square / (4 * effective**2))
    half = Z_95 * spread / (1 + square / effective)
    low = 0.0 if share == 0 else centre - half
    high = 1.0 if share == 1 else centre + half
    return Share(share, low, high, count)


def ratio_of_sums(
    *, sums: Float[np.ndarray, " groups"], counts: Int[np.ndarray, " groups"]
) -> Interval:
    """Sum over sum, with a 95 % interval in which what is summed of one group varies together.

    The linearised variance of a ratio of two sample means (Cochran 1977, sec. 2.11).
    """
    ratio = sums.sum() / counts.sum()
    spread = np.sqrt(np.square(sums - ratio * counts).sum()) / counts.sum()
    if len(sums) > 1:
        spread *= np.sqrt(len(sums) / (len(sums) - 1))
    return Interval(float(ratio), float(ratio - Z_95 * spread), float(ratio + Z_95 * spread))


def clustered_mean(*, values: Float[np.ndarray, " questions"], groups: Sequence[str]) -> Interval:
    """The mean, with a 95 % interval in which the values of one group vary together."""
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return ratio_of_sums(sums=np.bincount(inverse, weights=values), counts=np.bincount(inverse))


def macro_f1(
    *,
    given: Int[np.ndarray, " questions"],
    right: Int[np.ndarray, " questions"],
    num_labels: int,
    groups: Sequence[str],
) -> Interval:
    """The mean over labels of each one's F1; what is given and no label is -1.

    The interval is a percentile bootstrap that redraws whole groups. A label that a sample neither
    asks nor gives is left out of its mean.
    """
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(inverse.max()) + 1
    hits, sizes = np.zeros((2, num_groups, num_labels))
    np.add.at(sizes, (inverse, right), 1)
    is_label = given >= 0
    np.add.at(sizes, (inverse[is_label], given[is_label]), 1)
    np.add.at(hits, (inverse[given == right], right[given == right]), 1)

    def mean(weights: np.ndarray) -> float:
        below = weights @ sizes
        return float((2 * (weights @ hits)[below > 0] / below[below > 0]).mean())

    samples = [
        mean(np.bincount(drawn, minlength=num_groups))
        for drawn in redraw(num_groups, num_samples=1000)
    ]
    return percentile_interval(mean(np.ones(num_groups)), samples=samples)


def accuracy_ratio(
    *,
    correct: Bool[np.ndarray, " questions"],
    reference: Bool[np.ndarray, " questions"],
    groups: Sequence[str],
) -> Interval | None:
    """Accuracy of a model over the reference's on the same questions; None if that is zero.

    The interval is a paired percentile bootstrap (Efron & Tibshirani 1993, ch. 13) that redraws
    whole groups, since phrasings of one fact are right or wrong together.
    """
    if not reference.any():
        return None
    hits = _count_by_group(correct, groups)
    reference_hits = _count_by_group(reference, groups)
    ratios = []
    for drawn in redraw(len(hits), num_samples=NUM_SAMPLES):
        below = reference_hits[drawn].sum()
        if below:
            ratios.append(hits[drawn].sum() / below)
    return percentile_interval(float(correct.sum() / reference.sum()), samples=ratios)


def accuracy_difference(
    *,
    correct: Bool[np.ndarray, " questions"],
    reference: Bool[np.ndarray, " questions"],
    groups: Sequence[str],
) -> Interval:
    """Accuracy of a model minus the reference's on the same questions.

    The interval is the bootstrap of `accuracy_ratio`.
    """
    gains = _count_by_group(correct, groups) - _count_by_group(reference, groups)
    sizes = _count_by_group(np.ones(len(correct)), groups)
    samples = [
        gains[drawn].sum() / sizes[drawn].sum()
        for drawn in redraw(len(gains), num_samples=NUM_SAMPLES)
    ]
    return percentile_interval(float(gains.sum() / sizes.sum()), samples=samples)


def _count_by_group(weights: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(inverse, weights=weights)


def redraw(num_groups: int, *, num_samples: int) -> Iterator[Int[np.ndarray, " groups"]]:
    """Indices of as many groups, drawn with replacement, once for each sample; the same each time.

    For a bootstrap (Efron & Tibshirani 1993).
    """
    rng = np.random.default_rng(0)
    for _ in range(num_samples):
        yield rng.integers(0, num_groups, size=num_groups)


def percentile_interval(value: float, *, samples: Sequence[float] | np.ndarray) -> Interval:
    """A figure with the 95 % interval of what it is in bootstrap samples; nan is left out."""
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def speed_ratio(
    *,
    seconds: Float[np.ndarray, " answers"],
    reference_seconds: Float[np.ndarray, " answers"],
) -> Interval:
    """Median answer time of the reference over the model's, with a paired bootstrap interval.

    Both arrays hold the same questions in the same order, taken in one interleaved run.
    """
    drawn = np.random.default_rng(0).integers(0, seconds.size, size=(NUM_SAMPLES, seconds.size))
    ratios = np.median(reference_seconds[drawn], axis=1) / np.median(seconds[drawn], axis=1)
    point = float(np.median(reference_seconds) / np.median(seconds))
    return percentile_interval(point, samples=ratios)


def percentile(values: Sequence[float], share_ratio: float) -> float:
    """The value below which a share (0 to 1) of the values lies, interpolated linearly."""
    assert len(values) > 0
    return float(np.quantile(np.asarray(values, dtype=np.float64), share_ratio))
