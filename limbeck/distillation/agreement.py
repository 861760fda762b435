"""How far several answers to one question agree, and which of them are taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.distillation.endpoint.client import DISAGREEING, CallError
from limbeck.distillation.label_forms.config import KeptSamples
from limbeck.evaluation.metrics import entity_f1

SHOWN_CHARS = 60


def agreement_ratios(texts: Sequence[str]) -> list[float]:
    """Each answer's mean entity F1 with all others; equal texts agree.

    What a model answers more often is more often right (self-consistency, Wang et al. 2022,
    arXiv:2203.11171).
    """
    return _mean_agreements(texts, num_others=len(texts) - 1)


def _mean_agreements(texts: Sequence[str], *, num_others: int) -> list[float]:
    counts = Counter(texts)
    sums = {
        text: count
        - 1
        + sum(
            times * entity_f1(text, expected=[other])
            for other, times in counts.items()
            if other != text
        )
        for text, count in counts.items()
    }
    return [sums[text] / num_others for text in texts]


class DisagreementError(CallError):
    """The answers to a question agree too little for one of them to be taken."""

    def __init__(self, agreement_ratio: float, *, texts: Sequence[str]) -> None:
        shown = "; ".join(
            f"{count} x {text[:SHOWN_CHARS]}" for text, count in Counter(texts).most_common(3)
        )
        super().__init__(DISAGREEING, f"{agreement_ratio:.3f}: {shown}")
        self.agreement_ratio = agreement_ratio


@dataclass(frozen=True)
class TakenSamples:
    """The samples of one question that are taken as answers."""

    places: tuple[int, ...]
    """Which of the samples; the one that agrees most comes first."""
    agreement_ratio: float
    """Of the first with all other samples; 1 where there is no other."""


def take_samples(
    samples: Sequence[str | CallError], *, keep: KeptSamples, min_agreement_ratio: float
) -> TakenSamples:
    """The samples that are taken: the first of those that agree most, or further ones after it.

    A sample that is no usable answer agrees with none.

    Raises:
        CallError: no sample is usable; the reason is the most frequent one.
        DisagreementError: the best sample agrees less than `min_agreement_ratio` with the others.
    """
    usable = [place for place, item in enumerate(samples) if not isinstance(item, CallError)]
    texts = [item for item in samples if not isinstance(item, CallError)]
    if not texts:
        raise _most_frequent([item for item in samples if isinstance(item, CallError)])
    if len(samples) == 1:
        return TakenSamples((0,), 1.0)
    ratios = _mean_agreements(texts, num_others=len(samples) - 1)
    best = ratios.index(max(ratios))
    if ratios[best] < min_agreement_ratio:
        raise DisagreementError(ratios[best], texts=texts)
    others = [place for place in usable if place != usable[best]]
    if keep == "best":
        others = []
    elif keep == "distinct":
        first = {samples[place]: place for place in reversed(others)}
        others = sorted(place for text, place in first.items() if text != texts[best])
    return TakenSamples((usable[best], *others), ratios[best])


def _most_frequent(errors: Sequence[CallError]) -> CallError:
    counts = Counter(error.reason for error in errors)
    reason = max(counts, key=counts.__getitem__)
    return next(error for error in errors if error.reason == reason)
