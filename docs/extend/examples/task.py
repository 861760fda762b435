"""Doses: an answer is right when it names every number of the expected answer, and no other."""

import re
from typing import final

from typing_extensions import override

from limbeck.contracts.records import Question
from limbeck.evaluation.tasks import Response, Task, Verdict

NUMBER = re.compile(r"\d+(?:\.\d+)?")


@final
class Dose(Task):
    """Numbers of a dose, whatever the words around them; agrees by the Jaccard similarity."""

    form = "single"

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        found = _numbers(response.text)
        best = max(_similarity(found, _numbers(answer)) for answer in question.answers)
        return Verdict(best == 1, best)


def _numbers(text: str) -> set[float]:
    return {float(number) for number in NUMBER.findall(text)}


def _similarity(found: set[float], expected: set[float]) -> float:
    return len(found & expected) / len(found | expected) if found | expected else 0.0
