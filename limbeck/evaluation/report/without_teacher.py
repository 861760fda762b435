"""Models that no teacher taught, and what the teacher gave to a student from the same start.

Both follow from the manifests of the models, not from their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from limbeck.contracts.artifacts import Artifact, Manifest, Parent
from limbeck.contracts.lineage import find_parent
from limbeck.contracts.serialization import OPTIONAL
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.metrics import accuracy_difference
from limbeck.evaluation.quality import Estimate, compare_likelihoods

Training = Literal["trained without a teacher (labels alone)"]
WEIGHTS = ("model", "student", "checkpoint")
"""Fields that name the checkpoint a stage goes on with."""
SAME = ("initialize_from", "batching", "training", "seed")
"""Settings in which a student and its counterpart without a teacher agree."""
LABELS_KEPT = "labels_kept"
"""The metric of a labelled corpus: how many records kept the labels that they had."""


@dataclass(frozen=True)
class TeacherGain:
    """What a student has more than the same student trained without its teacher."""

    student: str
    alone: str
    difference: float
    """Of accuracies."""
    low: float
    high: float
    """The 95 % interval, paired over question groups."""
    count: int
    """Questions."""
    nats_per_byte: Estimate | None = field(default=None, metadata=OPTIONAL)
    """Difference of what the answers of test records take, paired alike; less is better. None
    where none were asked."""


def describe_training(artifact: Artifact) -> Training | None:
    """How a model was trained, where it and all that it goes on with learnt from labels alone.

    None where a teacher was at work, in the model's objective or in its corpus, and where the
    lineage does not tell: a published checkpoint, or one whose folder is gone.
    """
    return "trained without a teacher (labels alone)" if _learnt_alone(artifact) else None


def _learnt_alone(artifact: Artifact) -> bool:
    manifest = artifact.manifest
    if not manifest.stage or manifest.parents.get("teacher"):
        return False
    objective = manifest.recipe.get("objective")
    if isinstance(objective, dict) and objective.get("kind") != "next_token":
        return False
    corpora = _open(manifest.parents.get("corpus", ()), near=artifact)
    if not all(item is not None and item.manifest.stage == "prepare" for item in corpora):
        return False
    starts = [parent for field in WEIGHTS for parent in manifest.parents.get(field, ())]
    return all(item is not None and _learnt_alone(item) for item in _open(starts, near=artifact))


def _open(parents: Sequence[Parent], *, near: Artifact) -> Iterator[Artifact | None]:
    return (find_parent(parent, near=near.path) for parent in parents)


def pair_students(models: Sequence[Artifact]) -> list[tuple[str, str]]:
    """Each distilled student with its counterpart: same model, start, labels, batches and steps."""
    return [
        (student.name, alone.name)
        for student in models
        for alone in models
        if _is_counterpart(alone, student=student) and _learnt_alone(alone)
    ]


def _is_counterpart(alone: Artifact, *, student: Artifact) -> bool:
    own, other = alone.manifest, student.manifest
    if (own.stage, other.stage) != ("train", "distill"):
        return False
    if other.recipe.get("initialize_experts") != "none":
        return False
    is_same_model = _value(own, "model") == _value(other, "student")
    has_same_labels = _label_hashes(alone) == _label_hashes(student)
    return (
        is_same_model
        and has_same_labels
        and all(_value(own, name) == _value(other, name) for name in SAME)
    )


def _label_hashes(artifact: Artifact) -> list[str]:
    """Of the corpora with the labels that people gave; a teacher may have answered other questions.

    Where its answers took the place of all labels, that corpus stands for itself.
    """
    found = []
    for parent in artifact.manifest.parents.get("corpus", ()):
        corpus = find_parent(parent, near=artifact.path)
        if corpus is not None and _answers_bare_questions(corpus):
            found += [item.content_hash for item in corpus.manifest.parents["corpus"]]
        else:
            found.append(parent.content_hash)
    return found


def _answers_bare_questions(corpus: Artifact) -> bool:
    """Whether a corpus is another one with a teacher's answers to its questions without any."""
    return bool(corpus.manifest.metrics.get(LABELS_KEPT))


def _value(manifest: Manifest, name: str) -> object:
    """A setting, an artifact by its content."""
    if name in manifest.parents:
        return [parent.content_hash for parent in manifest.parents[name]]
    return manifest.recipe.get(name)


def measure_teacher_gain(
    student: str,
    alone: str,
    *,
    answers: Mapping[str, Sequence[AnsweredQuestion]],
    headline_tasks: Sequence[str],
) -> TeacherGain:
    """What the teacher added, over the questions of the headline tasks."""
    own, others = (
        [item for item in answers[name] if item.task in headline_tasks] for name in (student, alone)
    )
    found = accuracy_difference(
        correct=np.array([item.correct for item in own]),
        reference=np.array([item.correct for item in others]),
        groups=[item.cluster for item in own],
    )
    likelihoods = compare_likelihoods(answers[student], reference=answers[alone])
    return TeacherGain(student, alone, found.value, found.low, found.high, len(own), likelihoods)
