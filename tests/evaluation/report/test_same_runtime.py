"""A bundle is compared with its teacher's bundle of the same runtime."""

import pytest

from limbeck.contracts.answerer import Size
from limbeck.contracts.artifacts import Artifact, Parent
from limbeck.env.threads import ThreadChoice
from limbeck.evaluation.profiling.profile import Profile
from limbeck.evaluation.profiling.worker import Opened, Timing
from limbeck.evaluation.report.same_runtime import compare_in_runtimes
from tests.support.artifacts import make_artifact

SECONDS = {"teacher": 8.0, "big": 4.0, "small": 1.0, "file": 0.5}
RUNTIMES = {"big": "onnx", "small": "onnx", "file": "gguf"}


def make_profile(seconds):
    timings = {1: tuple(Timing(seconds * (1 + n / 10), 3) for n in range(5))}
    opened = Opened(Size(1, 1, 1), 0, 0, "")
    return Profile(opened, timings, {}, ThreadChoice(1, "work is shared", 1, 1, 1))


@pytest.fixture
def models(tmp_path):
    teacher = make_artifact(tmp_path / "teacher", "checkpoint")
    made = [teacher]
    for name, content_hash in (
        ("big", teacher.manifest.content_hash),
        ("small", "of the student"),
        ("file", "of the student"),
    ):
        parent = Parent(name="x", path="x", kind="checkpoint", content_hash=content_hash)
        bundle = make_artifact(tmp_path / name, "bundle", parents={"checkpoint": (parent,)})
        recipe = {"runtime": RUNTIMES[name]}
        made.append(Artifact(bundle.path, bundle.manifest.replace(recipe=recipe)))
    return made


def compare(models):
    return compare_in_runtimes(
        models,
        teacher="teacher",
        profiles={name: make_profile(seconds) for name, seconds in SECONDS.items()},
        num_threads=1,
    )


def test_the_models_own_part_is_distinguished_from_the_runtimes(models):
    (found,) = compare(models)  # neither the teacher's own bundle nor one of another runtime
    assert (found.model, found.teacher, found.runtime) == ("small", "big", "onnx")
    assert found.speedup == pytest.approx(4.0)
    assert found.low <= 4.0 <= found.high


def test_without_a_bundle_of_the_teacher_nothing_is_reported(models):
    assert compare([item for item in models if item.path.name != "big"]) == ()
