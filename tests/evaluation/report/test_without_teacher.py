"""Which rows no teacher taught follows from manifests; what a teacher adds is paired."""

import dataclasses

import numpy as np
import pytest

from limbeck.contracts.artifacts import Artifact, Parent
from limbeck.evaluation.metrics import accuracy_difference
from limbeck.evaluation.report.without_teacher import (
    LABELS_KEPT,
    describe_training,
    measure_teacher_gain,
    pair_students,
)
from tests.evaluation.report.test_rows import GROUPS, STUDENT, TEACHER, answers
from tests.support.artifacts import make_artifact

MODEL = {"kind": "dense", "hidden_size": 8}
SETTINGS = {"batching": {"seed": 2}, "training": {"max_steps": 400}, "seed": 0}


@pytest.fixture
def make(tmp_path):
    def make_stage(name, stage, *, recipe=None, **inputs):
        parents = {
            field: tuple(
                Parent(
                    name=item.path.name,
                    path=str(item.path),
                    kind=item.manifest.kind,
                    content_hash=item.manifest.content_hash,
                )
                for item in items
            )
            for field, items in inputs.items()
        }
        kind = "corpus" if stage in ("prepare", "label") else "checkpoint"
        made = make_artifact(tmp_path / name, kind, parents=parents)
        manifest = made.manifest.replace(stage=stage, recipe=recipe or {})
        (made.path / "manifest.json").write_text(manifest.model_dump_json())
        return Artifact(made.path, manifest)

    return make_stage


@pytest.fixture
def chain(make):
    """A teacher, its student, and the student without it."""
    corpus = make("corpus", "prepare")
    labels = {"objective": {"kind": "next_token"}}
    base = make("base", "train", recipe={**labels, "model": MODEL}, corpus=[corpus])
    teacher = make(
        "big", "train", recipe={**labels, "model": "base"}, corpus=[corpus], model=[base]
    )
    start = {"corpus": [corpus], "initialize_from": [teacher]}
    student = make(
        "small",
        "distill",
        recipe={
            **SETTINGS,
            "student": MODEL,
            "initialize_experts": "none",
            "objective": {"kind": "soft_target"},
        },
        teacher=[teacher],
        **start,
    )
    alone = make("lone", "train", recipe={**SETTINGS, **labels, "model": MODEL}, **start)
    return {"corpus": corpus, "teacher": teacher, "student": student, "alone": alone}


def test_a_row_without_a_teacher_is_found_by_its_lineage(chain, make):
    assert describe_training(chain["alone"]) == "trained without a teacher (labels alone)"
    assert describe_training(chain["teacher"]) == "trained without a teacher (labels alone)"
    assert describe_training(chain["student"]) is None
    recipe = {"objective": {"kind": "next_token"}}
    corpus = [chain["corpus"]]
    for start, expected in ((chain["student"], False), (chain["alone"], True)):
        cut = make("cut", "prune", recipe=recipe, corpus=corpus, checkpoint=[start])
        assert bool(describe_training(cut)) is expected
    labelled = make("labelled", "label", corpus=corpus, teacher=[chain["teacher"]])
    taught = make("taught", "train", recipe={**recipe, "model": MODEL}, corpus=[labelled])
    assert describe_training(taught) is None
    rewarded = {"objective": {"kind": "grpo"}, "model": "small"}
    rewarded = make("rewarded", "train", recipe=rewarded, corpus=corpus, model=[chain["alone"]])
    assert describe_training(rewarded) is None
    published = make_artifact(chain["corpus"].path.parent / "published", "checkpoint")
    published = dataclasses.replace(published, manifest=published.manifest.replace(stage=""))
    assert describe_training(published) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"kind": "dense", "hidden_size": 16}},
        {"training": {"max_steps": 401}},
        {"batching": {"seed": 3}},
        {"seed": 1},
        {"initialize_from": ()},
        {"objective": {"kind": "dpo"}},
    ],
    ids=str,
)
def test_a_student_is_paired_with_its_equal_alone(chain, changes):
    models = [chain[name] for name in ("teacher", "student", "alone")]
    assert pair_students(models) == [("small", "lone")]
    manifest = chain["alone"].manifest
    start = {"initialize_from": changes.get("initialize_from")}
    if start["initialize_from"] is None:
        manifest = manifest.replace(recipe={**manifest.recipe, **changes})
    else:
        manifest = manifest.replace(parents={**manifest.parents, **start})
    other = dataclasses.replace(chain["alone"], manifest=manifest)
    assert pair_students([*models[:2], other]) == []


def test_students_of_one_checkpoint_are_paired(chain, make):
    """As those that start from a cut model are, which a recipe gives by its entry's name."""
    cut, other = (
        make(name, "prune", recipe={"layers_ratio": ratio}, corpus=[chain["corpus"]])
        for name, ratio in (("cut", 0.5), ("other", 0.2))
    )
    labels = {"objective": {"kind": "next_token"}}
    start = {"corpus": [chain["corpus"]]}
    taught = {"student": "cut", "initialize_experts": "none", "objective": {"kind": "soft_target"}}
    student = make(
        "small",
        "distill",
        recipe=SETTINGS | taught,
        teacher=[chain["teacher"]],
        student=[cut],
        **start,
    )
    lone, stranger = (
        make(name, "train", recipe={**SETTINGS, **labels, "model": "cut"}, model=[model], **start)
        for name, model in (("lone", cut), ("stranger", other))
    )
    assert pair_students([student, lone, stranger]) == [("small", "lone")]


@pytest.mark.parametrize("num_kept", [0, 12])
def test_a_teachers_answers_to_other_questions_are_no_labels_of_the_counterpart(
    chain, make, num_kept
):
    labelled = make("labelled", "label", corpus=[chain["corpus"]], teacher=[chain["teacher"]])
    manifest = labelled.manifest.replace(metrics={LABELS_KEPT: num_kept})
    (labelled.path / "manifest.json").write_text(manifest.model_dump_json())
    manifest = chain["student"].manifest
    (parent,) = manifest.parents["corpus"]
    parent = parent.replace(
        name="labelled", path=str(labelled.path), content_hash=labelled.manifest.content_hash
    )
    manifest = manifest.replace(parents={**manifest.parents, "corpus": (parent,)})
    student = dataclasses.replace(chain["student"], manifest=manifest)
    found = pair_students([chain["teacher"], student, chain["alone"]])
    assert found == ([("small", "lone")] if num_kept else [])


def test_what_the_teacher_adds_is_paired_over_groups():
    asked = {"small": list(answers(TEACHER)), "lone": list(answers(STUDENT))}
    for name in asked:
        asked[name] += answers(np.zeros(len(TEACHER), dtype=bool), "refusal")
    gain = measure_teacher_gain("small", "lone", answers=asked, headline_tasks=("recall",))
    known = accuracy_difference(correct=TEACHER, reference=STUDENT, groups=GROUPS)
    assert (gain.difference, gain.low, gain.high) == (known.value, known.low, known.high)
    assert gain.difference == pytest.approx(TEACHER.mean() - STUDENT.mean())
    assert gain.count == len(TEACHER)
    assert gain.nats_per_byte is None


def test_what_the_teacher_adds_to_the_likelihood_of_test_records():
    asked = {
        name: [
            dataclasses.replace(item, option_scores=(score,), answer_tokens=2)
            for item in answers(TEACHER, "test_split")
        ]
        for name, score in (("small", -0.5), ("lone", -0.8))
    }
    gain = measure_teacher_gain("small", "lone", answers=asked, headline_tasks=("test_split",))
    assert gain.nats_per_byte.value == pytest.approx(-0.3 * 2 / len("右".encode()))
    assert gain.nats_per_byte.count == len(TEACHER)


def test_a_difference_is_narrower_when_answers_agree():
    """Paired: what both get wrong or right adds nothing, however hard the questions are."""
    same = accuracy_difference(correct=TEACHER, reference=TEACHER, groups=GROUPS)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    found = accuracy_difference(correct=TEACHER, reference=STUDENT, groups=GROUPS)
    shuffled = np.random.default_rng(0).permutation(STUDENT)
    unpaired = accuracy_difference(correct=TEACHER, reference=shuffled, groups=GROUPS)
    assert found.high - found.low < unpaired.high - unpaired.low
    assert found.low < found.value < found.high
