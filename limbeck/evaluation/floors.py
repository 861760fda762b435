"""Floors: what answers the same questions from the training records alone, without a model.

A model that a floor beats has learnt less than a table look-up. Every floor answers as a model
does, so that one code scores both. Questions about images have a majority and nothing else here.
"""

import hashlib
import heapq
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from limbeck.contracts.records import Question, Record
from limbeck.env.progress import track
from limbeck.evaluation.answer_questions import AnsweredQuestion, record_answer
from limbeck.evaluation.metrics import label_key
from limbeck.evaluation.tasks import Response, is_label

FloorName = Literal["majority", "lookup", "linear"]
FLOORS: tuple[FloorName, ...] = get_args(FloorName)
Missing = Literal[
    "no training record of this kind",
    "the question is an image",
    "too many different answers",
    "one answer only",
]
"""Why a floor has no answers to the questions of a task."""
MAX_RECORDS = 50_000
"""Training records looked at, drawn by a hash of their ids."""
MAX_LINEAR_RECORDS = 20_000
MAX_LINEAR_ANSWERS = 200
NGRAMS = (1, 3)
"""Shortest and longest character n-gram."""
MAX_CHARS = 2000
"""Of a question; the rest of a longer one is not compared."""
BATCH_QUESTIONS = 64
DECIMALS = 9
"""Similarities closer than this are equal, and the earlier record is taken."""


@dataclass(frozen=True)
class Floor:
    """The answers of one floor, and the tasks that it cannot answer with the reason."""

    name: FloorName
    answered: tuple[AnsweredQuestion, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)


def make_floors(
    read_records: Callable[[], Iterable[Record]],
    *,
    questions: Sequence[Question],
    names: Sequence[FloorName],
) -> tuple[Floor, ...]:
    """Every named floor, made from training records alone, with its answers to the questions.

    The records are read once for texts and once for images, and only those drawn are held.
    """
    if not names:
        return ()
    texts = _Index(_draw(item for item in read_records() if item.question and not item.images))
    with_images: list[Record] = []
    if any(question.images for question in questions):
        with_images = _draw(item for item in read_records() if item.question and item.images)
    answers: dict[FloorName, dict[int, str]] = {name: {} for name in names}
    missing: dict[FloorName, dict[str, Missing]] = {name: {} for name in names}
    tasks: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        tasks.setdefault(question.task, []).append(place)
    with track("floors", total=len(tasks) * len(names), unit="tasks") as advance:
        for task, places in tasks.items():
            members = [questions[place] for place in places]
            about_images = any(question.images for question in members)
            pool = _Pool(_Index(with_images) if about_images else texts, members)
            for name in names:
                found = _answer(name, pool=pool, about_images=about_images)
                if isinstance(found, str):
                    missing[name][task] = found
                else:
                    answers[name] |= dict(zip(places, found, strict=True))
                advance(1)
    return tuple(
        Floor(
            name,
            tuple(
                record_answer(questions[place], Response(text, 1.0))
                for place, text in sorted(answers[name].items())
            ),
            missing[name],
        )
        for name in names
    )


def _answer(name: FloorName, *, pool: "_Pool", about_images: bool) -> list[str] | Missing:
    """A floor's answers to the questions of one task, or why it has none."""
    if not pool.places:
        return "no training record of this kind"
    if name == "majority":
        return pool.majority()
    if about_images:
        return "the question is an image"
    if name == "lookup":
        return list(pool.lookup())
    if len(pool.counts) == 1:
        return "one answer only"
    if len(pool.counts) > MAX_LINEAR_ANSWERS:
        return "too many different answers"
    return pool.linear()


class _Index:
    """Training records and the TF-IDF vectors of their questions' character n-grams."""

    def __init__(self, records: Sequence[Record]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.records = records
        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)

    @cached_property
    def vectors(self):
        """One row a record."""
        return self.vectorizer.fit_transform(_text(record) for record in self.records)


class _Pool:
    """The questions of one task, and the records that could have taught it.

    Where the questions have labels, those that are answered by one; all of the index otherwise.
    """

    def __init__(self, index: _Index, questions: Sequence[Question]) -> None:
        self._index = index
        self._questions = questions
        self._has_labels = all(item.form != "choice" and is_label(item) for item in questions)
        labels = {label_key(text) for question in questions for text in question.options}
        self.places = [
            place
            for place, record in enumerate(index.records)
            if not self._has_labels or label_key(record.answer) in labels
        ]
        self._answers = [index.records[place].answer for place in self.places]
        self.counts = Counter(self._answers)
        """How often each answer is given; of equals, the first comes first."""

    def majority(self) -> list[str]:
        """The most frequent answer; of a choice, the option most often given as an answer."""
        most = max(self.counts, key=self.counts.__getitem__)
        return [
            max(question.options, key=lambda option: self.counts[option])
            if question.form == "choice"
            else most
            for question in self._questions
        ]

    def lookup(self) -> Iterator[str]:
        """The answer of the record that asks most alike.

        Of a choice, the option whose record asks most alike; where no option is the answer of a
        record, the one that is written most like the answer that would be copied.
        """
        owners: dict[str, list[int]] = {}
        for column, answer in enumerate(self._answers):
            owners.setdefault(answer, []).append(column)
        for question, row in zip(self._questions, self._similarities(), strict=True):
            if question.form != "choice":
                yield self._answers[int(row.argmax())]
                continue
            found = {
                option: row[owners[option]].max() for option in question.options if option in owners
            }
            if found:
                yield max(found, key=found.__getitem__)
            else:
                yield nearest(self._answers[int(row.argmax())], options=question.options)

    def linear(self) -> list[str]:
        """What a linear support vector classifier over the questions' n-grams predicts."""
        from sklearn.svm import LinearSVC

        drawn = sorted(
            sorted(self.places, key=lambda place: _digest(self._index.records[place].id))[
                :MAX_LINEAR_RECORDS
            ]
        )
        answers = [self._index.records[place].answer for place in drawn]
        if len(set(answers)) == 1:
            return answers[:1] * len(self._questions)
        with warnings.catch_warnings():
            # That most answers occur once is what a floor finds, no mistake of the caller's.
            warnings.simplefilter("ignore", UserWarning)
            model = LinearSVC(random_state=0).fit(self._index.vectors[drawn], answers)
        predicted = [str(text) for text in model.predict(self._asked)]
        return [
            nearest(text, options=question.options) if question.form == "choice" else text
            for question, text in zip(self._questions, predicted, strict=True)
        ]

    @cached_property
    def _asked(self):
        vectors = self._index.vectors  # which fits the vectorizer
        assert vectors.shape[0] == len(self._index.records)
        return self._index.vectorizer.transform(map(_text, self._questions))

    def _similarities(self) -> Iterator[np.ndarray]:
        """The cosine of each question with every record of the pool."""
        records = self._index.vectors[self.places].T.tocsc()
        for start in range(0, len(self._questions), BATCH_QUESTIONS):
            product = self._asked[start : start + BATCH_QUESTIONS] @ records
            yield from np.round(product.toarray(), DECIMALS)


def nearest(text: str, *, options: Sequence[str]) -> str:
    """The option that shares most pairs of characters with the text (Dice); the first of equals."""
    pairs = _pairs(text)

    def dice(option: str) -> float:
        others = _pairs(option)
        return 2 * (pairs & others).total() / max(1, (pairs + others).total())

    return max(options, key=lambda option: (option == text, dice(option)))


def _pairs(text: str) -> Counter[str]:
    key = label_key(text)
    return Counter([key[place : place + 2] for place in range(len(key) - 1)] + list(key))


def _text(item: Record | Question) -> str:
    """What is asked, with the turns before it, of which the last ones are kept."""
    return "\n".join((*item.history, item.question)).casefold()[-MAX_CHARS:]


def _draw(records: Iterable[Record]) -> list[Record]:
    """At most so many records, by a hash of their ids, in their own order."""
    ranked = ((_digest(record.id), place, record) for place, record in enumerate(records))
    drawn = heapq.nsmallest(MAX_RECORDS, ranked, key=lambda item: item[:2])
    return [record for _, _, record in sorted(drawn, key=lambda item: item[1])]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
