"""A floor of questions about images: logistic regression on their pixels."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from limbeck.contracts.records import Question
from limbeck.evaluation.floors.text_pool import TextPool
from limbeck.evaluation.metrics import label_key
from limbeck.evaluation.tasks import Response

SIDE = 28
"""Pixels of the squares that images are scaled to."""
MAX_ITERATIONS = 300
SMALLEST_PROBABILITY = 1e-12
"""Of an option that no training record answers with."""


def answer_by_pixels(pool: TextPool, *, folder: Path) -> list[Response]:
    """What logistic regression on the pixels of each question's image answers.

    The probabilities of a question's options are its scores. What is asked of an image does not
    count. The images of training records are files in the folder of their corpus.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = {
        (folder / record.images[0], record.answer): None
        for record in (pool.index.records[place] for place in pool.draw())
    }
    trained = [path for path, _ in seen]
    asked = [Path(question.images[0]) for question in pool.questions]
    pixels = _read_pixels([*trained, *asked])
    with warnings.catch_warnings():
        # A floor need not be the best such model, only the same on every run.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=MAX_ITERATIONS)
        model.fit(pixels[: len(trained)], [answer for _, answer in seen])
    answers = [str(item) for item in model.classes_]
    found = model.predict_proba(pixels[len(trained) :])
    return [
        Response(answers[int(row.argmax())], float(row.max()), _score(question, row, answers))
        for question, row in zip(pool.questions, found, strict=True)
    ]


def _score(question: Question, row: np.ndarray, answers: Sequence[str]) -> tuple[float, ...]:
    """The log-probability of each option; an answer in other letters is the same option."""
    keys = np.array([label_key(answer) for answer in answers])
    return tuple(
        float(np.log(max(SMALLEST_PROBABILITY, row[keys == label_key(option)].sum())))
        for option in question.options
    )


def _read_pixels(paths: Sequence[Path]) -> np.ndarray:
    """One row an image, 0 to 1: grey where all of them are, colour otherwise."""
    from limbeck.models.vision.image_processing import open_image

    images = {path: open_image(path) for path in dict.fromkeys(paths)}
    mode = "L" if all(image.mode == "L" for image in images.values()) else "RGB"
    rows = {
        path: np.asarray(image.convert(mode).resize((SIDE, SIDE)), np.float32).ravel() / 255
        for path, image in images.items()
    }
    return np.stack([rows[path] for path in paths])
