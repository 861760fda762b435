"""The teacher's outputs for a student: computed live, or opened where they were recorded."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Artifact, hash_file
from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import BatchingConfig
from limbeck.distillation.signals.manifest import check_fit
from limbeck.distillation.teachers.cross_tokenizer import (
    CrossTokenizerTeacher,
    open_cross_tokenizer_teacher,
)
from limbeck.distillation.teachers.endpoint import EndpointTeacher
from limbeck.distillation.teachers.offline import OfflineTeacher
from limbeck.distillation.teachers.offloading import load_frozen, move_unless_offloaded
from limbeck.models.attention_capture import enable_attention_capture
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import load_tokenizer
from limbeck.models.forward import KeptForward
from limbeck.models.structure import num_layers
from limbeck.models.targets import Form, FullLogits, Needs, Targets
from limbeck.models.vision.image_processing import ImageFormat
from limbeck.models.vision.modeling import image_format


class OnlineTeacher:
    """Runs the teacher on every batch."""

    def __init__(
        self, model: PreTrainedModel, *, layers: Sequence[int], vocab: int, form: Form = "logits"
    ) -> None:
        self.form: Form = form
        self.model = KeptForward(model.eval().requires_grad_(False))
        self.layers, self.attended = tuple(layers), ()
        self.known = tuple(range(1, num_layers(model) + 1))
        self.hidden = int(model.config.get_text_config().hidden_size)
        self.vocab = vocab
        self.sees = image_format(model.config)

    def ask(self, *, layers: Sequence[int], attended: Sequence[int]) -> None:
        """From now on give the layers' hidden states, and the others' queries, keys and values.

        Raises:
            ArtifactError: there are no such layers.
        """
        beyond = sorted({*layers, *attended} - set(self.known))
        if beyond:
            raise ArtifactError(
                f"matching wants teacher layers {beyond}, the teacher has {len(self.known)}"
            )
        self.layers, self.attended = tuple(layers), tuple(attended)
        if attended:
            enable_attention_capture(self.model.model)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The whole distribution at each kept position."""
        move_unless_offloaded(self.model, batch.input_ids.device)
        output = self.model(batch, layers=self.layers, attention=self.attended, form=self.form)
        said = output.projected or FullLogits(output.logits)
        return Targets(said, output.hidden, heads=output.heads)


def open_teacher(
    artifacts: Sequence[Artifact],
    *,
    corpus: Artifact,
    batching: BatchingConfig,
    needs: Needs | None,
    sees: ImageFormat | None = None,
) -> OnlineTeacher | OfflineTeacher | CrossTokenizerTeacher | EndpointTeacher | None:
    """The teacher in a checkpoint, run live, in recorded signals, or in the labels of a corpus;
    None where none is needed.

    `needs` are what the objective asks for, `sees` the format of
    the images that batches hold; recorded signals fit any.

    Raises:
        ArtifactError: the signals are damaged, or of another corpus, batching, template or
            tokenizer, or a live teacher reads other images.
    """
    if needs is None:
        return None
    (artifact,) = artifacts
    if needs.form == "text":
        return open_cross_tokenizer_teacher(artifact, corpus=corpus, batching=batching)
    if artifact.manifest.kind == "corpus":
        if artifact.manifest.content_hash != corpus.manifest.content_hash:
            raise ArtifactError(
                f"{artifact.path}: its labels are of its own answers, the stage reads the corpus "
                f"{corpus.path}; name the labelled corpus in `corpus` too"
            )
        return EndpointTeacher(artifact.path, batching=batching, needs=needs)
    if artifact.manifest.kind == "checkpoint":
        theirs = artifact.path / "tokenizer.json"
        if hash_file(theirs) != hash_file(corpus.path / "tokenizer" / "tokenizer.json"):
            raise ArtifactError(
                f"{artifact.path}: the teacher's tokenizer differs from the corpus's; prepare the "
                "corpus with `tokenizer: FOLDER` of the teacher, or learn from "
                "its text with `objective: {kind: cross_tokenizer}`"
            )
        vocab = len(load_tokenizer(artifact.path))
        live = OnlineTeacher(
            load_frozen(artifact.path), layers=needs.layers, vocab=vocab, form=needs.form
        )
        if sees not in (None, live.sees) and batching.images != "without":
            raise ArtifactError(
                f"{artifact.path}: the teacher reads images as {live.sees}, the student as {sees}; "
                "give both an encoder of the same sizes, record the teacher's signals, or set "
                "batching.images: without"
            )
        return live
    recorded = OfflineTeacher(artifact.path, needs=needs)
    check_fit(artifact.path, recorded.description, corpus=corpus, batching=batching)
    return recorded
