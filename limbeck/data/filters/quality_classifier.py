"""How much an answer can be trusted to be an answer, for records that do not say so themselves.

A logistic regression on features that a reader can check: do question and answer share rare words,
entities, a specialty; does the answer advertise, evade, repeat itself? Good examples are records
that carry a high confidence, or, where too few do, the records as they stand. Bad examples are
records that carry a low one, and answers moved to another question of the same source.

The fit weighs good and bad equally, so its odds are a likelihood ratio r; the confidence is
r p / (r p + 1 - p) with p the share of good records expected before looking (prior shift: Saerens,
Latinne & Decaestecker 2002, doi:10.1162/089976602753284446). With p = 0.95 the threshold of 0.9
asks r > 0.47: an answer falls only when it resembles a moved one twice as much as its own.
The same threshold on the balanced odds would ask r > 9 and drop most good short answers, whose
words seldom repeat the question's. Where records carry confidences, their own share is p.

The phrases are the pack's. Where they were written with the same records in view, the held-out AUC
is no test of them: it tests the weights alone.

Whether the answer is right, no feature can see.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import UNSCORED, Record
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.quality import ClassifierConfig
from limbeck.data.packs.schema import Pack

FEATURES = (
    "log_answer_chars",
    "log_question_chars",
    "question_covered_ratio",
    "answer_covered_ratio",
    "rarest_shared_bigram",
    "shared_entities",
    "question_entities",
    "answer_entities",
    "specialty_agrees",
    "specialty_differs",
    "evasive_phrases",
    "spam_phrases",
    "advice_words",
    "symbol_ratio",
    "distinct_bigram_ratio",
    "ends_whole",
)
NUM_FOLDS = 5


@dataclass(frozen=True)
class EstimateInterval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class QualityClassifier:
    """Confidences for records, and how well they were told apart when held out."""

    def __init__(self, lexicon: Lexicon, *, pack: Pack) -> None:
        self._lexicon = lexicon
        self._specialties = pack.specialties_of_name
        self._evasive = pack.description.phrases.pattern("evasive")
        self._spam = pack.description.phrases.pattern("spam")
        self._advice = pack.description.phrases.pattern("advice")
        self._rarity: dict[str, float] = {}
        self._unseen = 1.0
        self._model: Pipeline | None = None
        self._prior = 0.5
        self.report: JsonObject = {"fitted": False}

    def fit(
        self, records: Sequence[Record], *, config: ClassifierConfig, threshold: float, seed: int
    ) -> None:
        """Learn from the records, and judge on held-out groups of them."""
        carrying = [record for record in records if record.confidence != UNSCORED]
        good = [record for record in carrying if record.confidence > threshold]
        bad = [record for record in carrying if record.confidence <= threshold]
        enough = len(good) >= config.min_examples
        self._prior = len(good) / len(carrying) if enough and bad else config.good_ratio
        if not enough:
            good = [*good, *(record for record in records if record.confidence == UNSCORED)]
        good = good[: config.max_examples]
        self._prior = min(max(self._prior, 0.5), 0.99)
        self.report = {
            "fitted": False,
            "good_examples": len(good),
            "low_confidence_examples": len(bad),
            "good_ratio": self._prior,
            "threshold": threshold,
            "good_examples_are": "own confidence" if enough else "records as they stand",
        }
        if len(good) < config.min_examples:
            return
        self._count_rarity(records)
        moved = move_answers(good, seed=seed)
        rows = [(r.question, r.answer, r.group) for r in (*good, *bad)]
        rows += [(question, answer, group) for question, answer, group in moved]
        features = np.array([self.features(question, answer) for question, answer, _ in rows])
        labels = np.array([1] * len(good) + [0] * (len(rows) - len(good)))
        held_out = _score_held_out(features, labels, groups=[group for *_, group in rows])
        self._model = _build().fit(features, labels)
        self._report(held_out, labels, threshold=threshold)

    def score(self, record: Record) -> float:
        """How likely the record's answer belongs to its question."""
        if self._model is None:
            return self._prior
        features = np.array([self.features(record.question, record.answer)])
        return float(self._shift(self._model.decision_function(features))[0])

    def score_all(self, records: Sequence[Record]) -> list[float]:
        """The confidence of every record."""
        if self._model is None or not records:
            return [self._prior] * len(records)
        features = np.array([self.features(r.question, r.answer) for r in records])
        return self._shift(self._model.decision_function(features)).tolist()

    def features(self, question: str, answer: str) -> list[float]:
        """The features of a pair, in the order of `FEATURES`."""
        asked, said = _bigrams(question), _bigrams(answer)
        shared = asked.keys() & said.keys()
        weights = sorted((self._weight(pair) for pair in shared), reverse=True)
        asked_names = {name for _, name, _ in self._lexicon.find(question)}
        said_names = {name for _, name, _ in self._lexicon.find(answer)}
        left, right = self._vote(asked_names), self._vote(said_names)
        agree = bool(left & right)
        symbols = sum(
            not char.isalnum() and char not in "，。、；：？！（）“”…%" for char in answer
        )
        return [
            math.log1p(len(answer)),
            math.log1p(len(question)),
            sum(weights) / (sum(map(self._weight, asked)) or 1.0),
            sum(weights) / (sum(map(self._weight, said)) or 1.0),
            weights[0] if weights else 0.0,
            float(min(3, len(asked_names & said_names))),
            float(min(3, len(asked_names))),
            float(min(5, len(said_names))),
            float(agree),
            float(bool(left) and bool(right) and not agree),
            float(min(3, len(self._evasive.findall(answer)))),
            float(min(3, len(self._spam.findall(answer)))),
            float(min(5, len(self._advice.findall(answer)))),
            symbols / max(1, len(answer)),
            len(said) / max(1, said.total()),
            float(answer[-1:] in "。！？"),
        ]

    def _vote(self, names: set[str]) -> set[str]:
        return {key for name in names for key in self._specialties.get(name, ())}

    def _weight(self, bigram: str) -> float:
        return self._rarity.get(bigram, self._unseen)

    def _count_rarity(self, records: Sequence[Record]) -> None:
        """Inverse document frequency of every pair of neighbouring characters, in 0 to 1.

        A question and its answer count as two documents. As one, a pair of characters that only
        they share would be rarer than any that a question shares with a moved answer, by
        construction, and the held-out figure would flatter.
        """
        counts: Counter[str] = Counter()
        for record in records:
            counts.update(_bigrams(record.question).keys())
            counts.update(_bigrams(record.answer).keys())
        top = math.log(1 + 2 * len(records))
        self._rarity = {
            bigram: math.log((1 + 2 * len(records)) / (1 + count)) / top
            for bigram, count in counts.items()
        }

    def _shift(self, log_odds: np.ndarray) -> np.ndarray:
        """Confidences under the expected share of good records."""
        shifted = log_odds + math.log(self._prior / (1 - self._prior))
        return 1 / (1 + np.exp(-np.clip(shifted, -60, 60)))

    def _report(self, held_out: np.ndarray, labels: np.ndarray, *, threshold: float) -> None:
        auc = auc_interval(labels, held_out)
        passed = self._shift(held_out) > threshold
        assert self._model is not None
        weights = self._model.named_steps["logisticregression"].coef_[0]
        self.report |= {
            "fitted": True,
            "bad_examples": int((labels == 0).sum()),
            "held_out_auc": {"value": auc.value, "low": auc.low, "high": auc.high},
            "good_kept_ratio": float(passed[labels == 1].mean()),
            "bad_dropped_ratio": float(1 - passed[labels == 0].mean()),
            "weights": {
                name: round(float(w), 4) for name, w in zip(FEATURES, weights, strict=True)
            },
        }


def move_answers(records: Sequence[Record], *, seed: int) -> list[tuple[str, str, str]]:
    """Each question with the answer of another question of the same source, and its group."""
    moved = []
    by_source: dict[str, list[Record]] = {}
    for record in records:
        by_source.setdefault(record.source, []).append(record)
    for source, members in by_source.items():
        order = list(range(len(members)))
        random.Random(f"{seed}:{source}").shuffle(order)
        for index, other in zip(order, [*order[1:], *order[:1]], strict=True):
            if members[index].group != members[other].group:
                record = members[index]
                moved.append((record.question, members[other].answer, record.group))
    return moved


def auc_interval(labels: np.ndarray, scores: np.ndarray) -> EstimateInterval:
    """Area under the ROC curve with the interval of Hanley & McNeil (1982)."""
    auc = float(roc_auc_score(labels, scores))
    num_good, num_bad = int((labels == 1).sum()), int((labels == 0).sum())
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (num_good - 1) * (q1 - auc**2) + (num_bad - 1) * (q2 - auc**2)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (num_good * num_bad))
    return EstimateInterval(auc, max(0.0, auc - half), min(1.0, auc + half))


def _build() -> Pipeline:
    return make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )


def _score_held_out(
    features: np.ndarray, labels: np.ndarray, *, groups: Sequence[str]
) -> np.ndarray:
    """Log odds of every row by a model that saw no row of its group."""
    scores = np.zeros(len(labels))
    for fit, held in GroupKFold(n_splits=NUM_FOLDS).split(features, labels, groups):
        scores[held] = _build().fit(features[fit], labels[fit]).decision_function(features[held])
    return scores


def _bigrams(text: str) -> Counter[str]:
    return Counter(text[start : start + 2] for start in range(len(text) - 1))
