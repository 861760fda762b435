"""A floor for domains whose names are known: whose question is it, and which one of theirs.

The names are those that the corpus marks in its training questions, by its lexicon.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from limbeck.contracts.records import Record
from limbeck.evaluation.floors.text_pool import (
    BATCH_QUESTIONS,
    DECIMALS,
    NGRAMS,
    TextPool,
    question_text,
)

OVERLAP_WEIGHT = 1e6
"""Makes any difference between the names count before all of what is left."""


class EntityIndex:
    """Training records by the names in their questions, and by TF-IDF vectors of what is left."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._names = {
            entity.text.casefold()
            for record in records
            for entity in record.entities
            if entity.part == "question"
        }
        self._lengths = sorted({len(name) for name in self._names}, reverse=True)
        self._built: tuple | None = None

    @property
    def has_names(self) -> bool:
        """Whether any training question has a marked name."""
        return bool(self._names)

    def split(self, text: str) -> tuple[list[str], str]:
        """The names in a text, leftmost and longest first, and the text without them."""
        names, rest, place = [], [], 0
        while place < len(text):
            fitting = (text[place : place + length] for length in self._lengths)
            name = next((item for item in fitting if item in self._names), "")
            if name:
                names.append(name)
            else:
                rest.append(text[place])
            place += len(name) or 1
        return names, "".join(rest)

    def similarities(self, pool: TextPool) -> Iterator[np.ndarray]:
        """How much each question of the pool shares with each of its records.

        The Jaccard similarity of their names comes first, the cosine of what is left second.
        """
        names, rests, count_names, vectorize = self._build()
        asked = [self.split(question_text(question)) for question in pool.questions]
        asked_names = count_names.transform(["\n".join(found) for found, _ in asked])
        asked_rests = vectorize.transform([rest for _, rest in asked])
        names, rests = names[pool.places], rests[pool.places].T.tocsc()
        sizes = np.asarray(names.sum(axis=1)).ravel()
        for start in range(0, len(asked), BATCH_QUESTIONS):
            rows = slice(start, start + BATCH_QUESTIONS)
            shared = (asked_names[rows] @ names.T).toarray()
            # Names that no record has still make the question another one.
            whole = np.array([[len(set(found))] for found, _ in asked[rows]]) + sizes - shared
            overlap = shared / np.maximum(whole, 1)
            cosine = np.round((asked_rests[rows] @ rests).toarray(), DECIMALS)
            yield from OVERLAP_WEIGHT * overlap + cosine

    def _build(self) -> tuple:
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

        if self._built is None:
            split = [self.split(question_text(record)) for record in self._records]
            count_names = CountVectorizer(token_pattern=r"[^\n]+", lowercase=False, binary=True)
            vectorize = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)
            names = count_names.fit_transform(["\n".join(found) for found, _ in split])
            rests = vectorize.fit_transform([rest for _, rest in split])
            self._built = names, rests, count_names, vectorize
        return self._built
