"""What every objective's Config promises, whichever of the registry it is."""

import inspect

import pytest

from limbeck.contracts.config import Choice, resolve
from limbeck.contracts.registry import MODELS, OBJECTIVES
from limbeck.models.config import ModelConfig
from limbeck.objectives.config import ObjectiveConfig, TeacherTerm


def make(kind: str, **settings) -> ObjectiveConfig:
    config = Choice(OBJECTIVES, what="objective").build({"kind": kind, **settings})
    assert isinstance(config, ObjectiveConfig)
    return config


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_objective_answers_every_question(kind):
    config = make(kind)
    assert config.kind == kind
    assert not inspect.isabstract(type(config))
    assert config.with_teacher_weight(0.5).matched_features == ()
    assert config.sequences_per_record >= (1 if config.batch_kind == "records" else 2)
    assert (config.teacher_term(progress=0.0) is None) == (config.needs() is None)
    if config.batch_kind != "records":
        assert config.needs() is None
        with pytest.raises(ValueError, match="which only the stage `train` makes"):
            config.check_teacher("teacher")
        with pytest.raises(ValueError, match="name that checkpoint in `model`"):
            config.check_start({"kind": "dense"})


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_packed_rows_are_refused_unless_the_loss_treats_each_token_by_itself(kind):
    config = make(kind)
    config.check_packing("none")
    if kind in ("next_token", "soft_target"):
        config.check_packing("full")
    else:
        with pytest.raises(ValueError, match="reads one record a row"):
            config.check_packing("full")


def test_a_teacher_is_given_exactly_where_one_is_needed():
    make("soft_target").check_teacher("teacher")
    make("next_token").check_teacher("")
    with pytest.raises(ValueError, match="needs a `teacher`"):
        make("soft_target").check_teacher("")
    with pytest.raises(ValueError, match="uses no teacher"):
        make("next_token").check_teacher("teacher")


def test_the_teacher_term_follows_the_schedules():
    config = make("soft_target", weight={"from": 0.8, "to": 0.2}, temperature=3)
    assert config.teacher_term(progress=0.0) == TeacherTerm(0.8, 3.0)
    found = config.teacher_term(progress=1.0)
    assert found is not None and found.weight == pytest.approx(0.2)
    assert config.with_teacher_weight(0.5).teacher_term(progress=1.0) == TeacherTerm(0.5, 3.0)


@pytest.mark.parametrize(
    ("fused", "small", "large"),
    [("auto", False, True), ("always", True, True), ("never", False, False)],
)
def test_a_loss_is_chunked_for_large_vocabularies(fused, small, large):
    config = make("soft_target", fused=fused)
    assert config.chunks_logits(vocab=1_000) == small
    assert config.chunks_logits(vocab=100_000) == large
    assert not make("next_token").chunks_logits(vocab=100_000)


def test_an_objective_without_build_cannot_be_made():
    class Unbuilt(ObjectiveConfig):
        """Lacks `build`."""

    with pytest.raises(TypeError, match="abstract"):
        Unbuilt(kind="unbuilt")  # pyright: ignore[reportAbstractUsage]


def test_every_model_description_is_a_model_config():
    for name in MODELS:
        found = resolve(MODELS, name, what="model")
        assert issubclass(found, ModelConfig) and not inspect.isabstract(found)
