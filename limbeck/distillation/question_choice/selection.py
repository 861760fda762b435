"""Questions chosen from many: by chance, by clusters of their n-grams, by a linear model's margin.

Every function returns the same on every run, however many cores there are.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record
from limbeck.data.corpus.splits import draw_ratio
from limbeck.evaluation.floors.methods import MAX_LINEAR_ANSWERS
from limbeck.evaluation.floors.text_pool import MAX_LINEAR_RECORDS, NGRAMS, question_text

NUM_COMPONENTS = 64
"""Of the latent semantic analysis in which questions are compared."""
MAX_ITERATIONS = 20
"""Of k-means; the groups need not be the best ones."""
MAX_DISTANCES = 2_000_000_000
"""Between questions and centres, of one iteration: some minutes on one core."""


def draw_random(questions: Sequence[Record], *, max_questions: int, seed: int) -> list[int]:
    """Places drawn by a hash of what is asked, in their order; a larger limit adds to them."""
    return sorted(_shuffle(questions, seed=seed)[:max_questions])


def _shuffle(questions: Sequence[Record], *, seed: int) -> list[int]:
    draws = [draw_ratio(f"ask:{seed}:{question_text(item)}") for item in questions]
    return np.argsort(draws, kind="stable").tolist()


def choose_diverse(questions: Sequence[Record], *, max_questions: int, seed: int) -> list[int]:
    """Places of the questions nearest to the centres of `max_questions` clusters, in their order.

    One typical question of every region, as in TypiClust (Hacohen et al. 2022, arXiv:2202.02794),
    which needs no model. Questions are compared by latent semantic analysis
    of the TF-IDF of their character n-grams. Where questions are equal there are fewer clusters;
    random ones fill up.

    Raises:
        DataError: there are too many questions and clusters.
    """
    if len(questions) <= max_questions:
        return list(range(len(questions)))
    if len(questions) * max_questions > MAX_DISTANCES:
        raise DataError(
            f"{max_questions:,} clusters of {len(questions):,} questions take too long; lower "
            "choose.max_questions, or set choose.kind: random"
        )
    chosen = nearest_to_centres(_embed(questions, seed=seed), num_clusters=max_questions, seed=seed)
    ordered = dict.fromkeys([*chosen, *_shuffle(questions, seed=seed)])
    return sorted(list(ordered)[:max_questions])


def nearest_to_centres(
    vectors: Float[np.ndarray, "questions dims"], *, num_clusters: int, seed: int
) -> list[int]:
    """The row nearest to the centre of each cluster of k-means; the first of equals."""

    model = KMeans(
        num_clusters, init="k-means++", n_init="auto", max_iter=MAX_ITERATIONS, random_state=seed
    )
    # Sums by several threads differ in their last digits, and then so do the clusters.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels: Int[np.ndarray, " questions"] = model.fit_predict(vectors)
    distances = np.linalg.norm(vectors - model.cluster_centers_[labels], axis=1)
    order = np.lexsort((distances, labels))
    firsts = np.unique(labels[order], return_index=True)[1]
    return order[firsts].tolist()


def linear_margins(
    questions: Sequence[Record], *, labelled: Sequence[Record]
) -> Float[np.ndarray, " questions"]:
    """How sure a linear classifier of the labelled records is of each question's label.

    The margin is the difference of its two highest scores (Scheffer et al. 2001); the classifier
    is that of the floor `linear` of a report.

    Raises:
        DataError: the answers of the labelled records are not labels.
    """

    labelled = sorted(labelled, key=lambda item: hash_text(item.id))[:MAX_LINEAR_RECORDS]
    answers = [item.answer for item in labelled]
    num_answers = len(set(answers))
    if not 2 <= num_answers <= MAX_LINEAR_ANSWERS:
        raise DataError(
            f"the {len(answers):,} labelled training records have {num_answers:,} different "
            f"answers, so they make no classifier (expected 2 to {MAX_LINEAR_ANSWERS}); name a "
            "`student`, or set choose.kind: diverse"
        )
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)
    vectors = vectorizer.fit_transform(map(question_text, labelled))
    model = LinearSVC(random_state=0).fit(vectors, answers)
    scores = np.asarray(
        model.decision_function(vectorizer.transform(map(question_text, questions)))
    )
    if scores.ndim == 1:
        return np.abs(scores)
    highest = np.sort(scores, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def _embed(questions: Sequence[Record], *, seed: int) -> Float[np.ndarray, "questions dims"]:
    """Questions as points on a sphere (Deerwester et al. 1990)."""

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)
    vectors = vectorizer.fit_transform(map(question_text, questions))
    num_components = min(NUM_COMPONENTS, *vectors.shape)
    with threadpool_limits(1):
        _, _, components = randomized_svd(vectors, num_components, random_state=seed)
        reduced = np.asarray(vectors @ components.T)
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    return reduced / np.where(norms > 0, norms, 1.0)
