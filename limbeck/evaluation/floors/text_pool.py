"""Floors of questions in words: the most frequent answer, the nearest one, a linear guess."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.records import Question, Record
from limbeck.evaluation.metrics import label_key
from limbeck.evaluation.tasks import is_label

MAX_LINEAR_RECORDS = 20_000
NGRAMS = (1, 3)
"""Shortest and longest character n-gram."""
MAX_CHARS = 2000
"""Of a question; the rest of a longer one is not compared."""
BATCH_QUESTIONS = 64
DECIMALS = 9
"""Similarities closer than this are equal, and the earlier record is taken."""


class TextIndex:
    """Training records and the TF-IDF vectors of their questions' character n-grams."""

    def __init__(self, records: Sequence[Record]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.records = records
        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)

    @cached_property
    def vectors(self):
        """One row a record."""
        return self.vectorizer.fit_transform(question_text(record) for record in self.records)


class TextPool:
    """The questions of one task, and the records that could have taught it.

    Where the questions have labels, those that are answered by one; all of the index otherwise.
    """

    def __init__(self, index: TextIndex, questions: Sequence[Question]) -> None:
        self.index = index
        self.questions = questions
        self.has_labels = all(item.form != "choice" and is_label(item) for item in questions)
        labels = {label_key(text) for question in questions for text in question.options}
        self.places = [
            place
            for place, record in enumerate(index.records)
            if not self.has_labels or label_key(record.answer) in labels
        ]
        self._answers = [index.records[place].answer for place in self.places]
        self.counts = Counter(self._answers)
        """How often each answer is given; of equals, the first comes first."""

    def draw(self) -> list[int]:
        """At most so many places as a classifier is made from, by a hash of the records' ids."""
        ranked = sorted(self.places, key=lambda place: hash_text(self.index.records[place].id))
        return sorted(ranked[:MAX_LINEAR_RECORDS])

    def majority(self) -> list[str]:
        """The most frequent answer; of a choice, the option most often given as an answer."""
        most = max(self.counts, key=self.counts.__getitem__)
        return [
            max(question.options, key=lambda option: self.counts[option])
            if question.form == "choice"
            else most
            for question in self.questions
        ]

    def lookup(self) -> Iterator[str]:
        """The answer of the record that asks most alike."""
        return self.copy_answers(self._similarities())

    def copy_answers(self, similarities: Iterable[np.ndarray]) -> Iterator[str]:
        """The answer of the record that is most similar to each question, by rows of them.

        Of a choice, the option whose record asks most alike; where no option is the answer of a
        record, the one that is written most like the answer that would be copied.
        """
        owners: dict[str, list[int]] = {}
        for column, answer in enumerate(self._answers):
            owners.setdefault(answer, []).append(column)
        for question, row in zip(self.questions, similarities, strict=True):
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

        drawn = self.draw()
        answers = [self.index.records[place].answer for place in drawn]
        if len(set(answers)) == 1:
            return answers[:1] * len(self.questions)
        with warnings.catch_warnings():
            # That most answers occur once is what a floor finds, no mistake of the caller's.
            warnings.simplefilter("ignore", UserWarning)
            model = LinearSVC(random_state=0).fit(self.index.vectors[drawn], answers)
        predicted = [str(text) for text in model.predict(self._asked)]
        return [
            nearest(text, options=question.options) if question.form == "choice" else text
            for question, text in zip(self.questions, predicted, strict=True)
        ]

    @cached_property
    def _asked(self):
        vectors = self.index.vectors  # which fits the vectorizer
        assert vectors.shape[0] == len(self.index.records)
        return self.index.vectorizer.transform(map(question_text, self.questions))

    def _similarities(self) -> Iterator[np.ndarray]:
        """The cosine of each question with every record of the pool."""
        records = self.index.vectors[self.places].T.tocsc()
        for start in range(0, len(self.questions), BATCH_QUESTIONS):
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


def question_text(item: Record | Question) -> str:
    """What is asked, with the turns before it, of which the last ones are kept."""
    return "\n".join((*item.history, item.question)).casefold()[-MAX_CHARS:]
