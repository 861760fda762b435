"""How exported questions are scored inside lm-evaluation-harness: by Limbeck's own verdicts.

A task file names these functions (`!function limbeck.harness.scoring.score_choice`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.evaluation.tasks import Response, score_response


def score_choice(
    document: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    """`acc`: the option of the largest sum of log-probabilities is right. `acc_per_token`: that of
    the largest mean per token, which is what Limbeck's own report chooses by.
    """
    question, sums = read_question(document), sum_options(document, results)
    means = [log / num for log, num in zip(sums, document["choice_tokens"], strict=True)]
    return {
        name: float(_judge(question, question.options[scores.index(max(scores))]))
        for name, scores in (("acc", sums), ("acc_per_token", means))
    }


def sum_options(document: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> list[float]:
    """The log-probability of each option, whichever token ends it, after what opens an answer.

    `results` are what `limbeck.harness.choice_task` asks for: each option with each end, and last
    what opens an answer, if that counts for none.

    Raises:
        DataError: an earlier version of Limbeck exported the question.
    """
    logs = [log for log, _ in results]
    num_ends = len(_read(document, "ends"))
    places = range(0, num_ends * len(document["options"]), num_ends)
    opening = logs[num_ends * len(places)] if len(logs) > num_ends * len(places) else 0.0
    return [float(np.logaddexp.reduce(logs[at : at + num_ends])) - opening for at in places]


def score_answer(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`correct`: Limbeck's verdict. `exact_match`: the text is an answer, to the letter.

    What a template writes before each answer, such as an empty thought, is no part of it.
    """
    question, text = read_question(document), results[0].removeprefix(_read(document, "opening"))
    return {
        "correct": float(_judge(question, text)),
        "exact_match": float(text.strip() in {answer.strip() for answer in question.answers}),
    }


def read_question(document: Mapping[str, Any]) -> Question:
    """The question that a document was made of."""
    return Question.from_json(json.loads(document["asked"]))


def _read(document: Mapping[str, Any], key: str) -> Any:
    if key not in document:
        raise DataError(
            f"question {document.get('id')!r} has no {key!r}: an earlier version of Limbeck "
            "exported it; export the tasks again with --export-tasks"
        )
    return document[key]


def _judge(question: Question, text: str) -> bool:
    return score_response(question, Response(text, 1.0)).correct
