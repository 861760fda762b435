"""How far several answers to one question agree."""

from collections.abc import Sequence

from limbeck.evaluation.metrics import entity_f1


def agreement_ratios(texts: Sequence[str]) -> list[float]:
    """Each answer's mean entity F1 with all others.

    What a model answers more often is more often right (self-consistency, Wang et al. 2022,
    arXiv:2203.11171).
    """
    return [
        sum(
            entity_f1(text, expected=[other]) for place, other in enumerate(texts) if place != index
        )
        / (len(texts) - 1)
        for index, text in enumerate(texts)
    ]
