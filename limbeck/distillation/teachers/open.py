"""Opens the teacher that a recipe entry names: live, recorded, labelled by a server, or several."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, CheckpointError
from limbeck.data.loading.batches import Batches
from limbeck.distillation.known_inputs import describe_foreign_student
from limbeck.distillation.signals.manifest import check_fit
from limbeck.distillation.teachers.base import Teacher
from limbeck.distillation.teachers.config import RouterSampling, Teachers
from limbeck.distillation.teachers.cross_tokenizer import open_cross_tokenizer_teacher
from limbeck.distillation.teachers.endpoint import EndpointTeacher
from limbeck.distillation.teachers.ensemble import combine_teachers
from limbeck.distillation.teachers.offline import OfflineTeacher
from limbeck.distillation.teachers.online import open_online_teacher
from limbeck.distillation.teachers.router_sampling import RouterSamplingTeacher
from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.config import Needs


def open_teacher(
    artifacts: Sequence[Artifact],
    *,
    corpus: Artifact,
    batches: Batches,
    needs: Needs | None,
    names: Sequence[str] = (),
    teachers: Teachers | None = None,
    router_sampling: RouterSampling | None = None,
) -> Teacher | None:
    """The teacher of an objective, or several as one; None where the objective needs none.

    `batches` are what the student learns from; `names` are the artifacts' in the recipe.

    Raises:
        ArtifactError: a teacher is damaged, or of another corpus, batching, template, tokenizer or
            image format, or several do not fit together.
        CheckpointError: experts are to be sampled, and no single live model has any.
    """
    if needs is None:
        return None
    if len(artifacts) == 1:
        teacher = _open_one(artifacts[0], corpus=corpus, batches=batches, needs=needs)
    else:
        one = replace(needs, logits_form="full")
        opened = [
            _open_one(artifact, corpus=corpus, batches=batches, needs=one) for artifact in artifacts
        ]
        teacher = combine_teachers(
            dict(zip(names, opened, strict=True)),
            config=teachers or Teachers(),
            batches=batches,
            temperature=needs.temperature,
        )
    if router_sampling is None or not router_sampling.num_samples:
        return teacher
    return _sample_router(teacher, num_samples=router_sampling.num_samples, needs=needs)


def _open_one(artifact: Artifact, *, corpus: Artifact, batches: Batches, needs: Needs) -> Teacher:
    batching, image_format = batches.config, batches.pixels.image_format
    _check_student(batches.tokenizer, corpus)
    if needs.tokenizer == "own":
        return open_cross_tokenizer_teacher(artifact, corpus=corpus, batching=batching)
    if artifact.manifest.kind == "corpus":
        if artifact.manifest.content_hash != corpus.manifest.content_hash:
            raise ArtifactError(
                f"{artifact.path}: its labels are of its own answers, the stage reads the corpus "
                f"{corpus.path}; name the labelled corpus in `corpus` too"
            )
        return EndpointTeacher(Corpus(artifact.path), batches=batches, needs=needs)
    if artifact.manifest.kind == "checkpoint":
        online = open_online_teacher(artifact, corpus=corpus, logits_form=needs.logits_form)
        if image_format not in (None, online.image_format) and batching.images != "without":
            raise ArtifactError(
                f"{artifact.path}: the teacher reads images as {online.image_format}, the student "
                f"as {image_format}; give both an encoder of the same sizes, record the teacher's "
                "signals, or set batching.images: without"
            )
        return online
    offline = OfflineTeacher(artifact.path, needs=needs)
    check_fit(artifact.path, offline.manifest, corpus=corpus, batching=batching)
    return offline


def _check_student(tokenizer: PreTrainedTokenizerBase, corpus: Artifact) -> None:
    """Raises: CheckpointError: the student reads other tokens than the corpus's."""
    ours = load_tokenizer(Corpus(corpus.path).tokenizer_path)
    if difference := identify(tokenizer).find_difference(identify(ours)):
        raise CheckpointError(describe_foreign_student(tokenizer.name_or_path, difference))


def _sample_router(teacher: Teacher, *, num_samples: int, needs: Needs) -> RouterSamplingTeacher:
    if teacher.live_model is None:
        raise CheckpointError(
            f"router_sampling: {num_samples} samples run the teacher again, which only a single "
            "live one of the corpus's tokenizer can; name one checkpoint in `teacher`, or remove "
            "router_sampling"
        )
    if needs.max_temperature:
        raise CheckpointError(
            f"router_sampling: {num_samples} samples are averaged at one temperature, and that of "
            f"the objective goes from {needs.temperature!r} to {needs.max_temperature!r}; give it "
            "a number"
        )
    return RouterSamplingTeacher(
        teacher, teacher.live_model, num_samples=num_samples, temperature=needs.temperature
    )
