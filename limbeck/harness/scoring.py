"""How exported questions are scored inside lm-evaluation-harness: by Limbeck's own verdicts.

A task file names these functions (`!function limbeck.harness.scoring.score_choice`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.contracts.records import Question
from limbeck.evaluation.tasks import Response, score_response


def score_choice(
    document: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    """`acc`: the option of the largest sum of log-probabilities is right. `acc_per_token`: that of
    the largest mean per token, which is what Limbeck's own report chooses by.
    """
    question = read_question(document)
    sums = [log for log, _ in results]
    means = [log / num for log, num in zip(sums, document["choice_tokens"], strict=True)]
    return {
        name: float(_judge(question, question.options[scores.index(max(scores))]))
        for name, scores in (("acc", sums), ("acc_per_token", means))
    }


def score_answer(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`correct`: Limbeck's verdict. `exact_match`: the text is an answer, to the letter."""
    question, text = read_question(document), results[0]
    return {
        "correct": float(_judge(question, text)),
        "exact_match": float(text.strip() in {answer.strip() for answer in question.answers}),
    }


def read_question(document: Mapping[str, Any]) -> Question:
    """The question that a document was made of."""
    return Question.from_json(json.loads(document["asked"]))


def _judge(question: Question, text: str) -> bool:
    return score_response(question, Response(text, 1.0)).correct
