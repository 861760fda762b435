"""A teacher that runs on every batch."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.distillation.known_inputs import describe_difference
from limbeck.distillation.targets import Targets, live_output
from limbeck.distillation.teachers.base import Teacher
from limbeck.distillation.teachers.offloading import load_frozen, move_unless_offloaded
from limbeck.models.attention_capture import enable_attention_capture
from limbeck.models.batch import Batch
from limbeck.models.config import LogitsForm
from limbeck.models.forward import KeptForward
from limbeck.models.structure import num_layers
from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.configuration import image_format


class OnlineTeacher(Teacher):
    """Runs the teacher on every batch."""

    def __init__(
        self, model: PreTrainedModel, *, vocab: int, logits_form: LogitsForm = "full"
    ) -> None:
        self.live_model: PreTrainedModel | None = model
        self.logits_form: LogitsForm = logits_form
        self.forward = KeptForward(model.eval().requires_grad_(False))
        self.layers = tuple(range(1, num_layers(model) + 1))
        self.hidden_size = int(model.config.get_text_config().hidden_size)
        self.vocab = vocab
        self.image_format = image_format(model.config)
        """The format of its images; None for a model of text."""
        self.required_layers: tuple[int, ...] = ()
        self.required_attention: tuple[int, ...] = ()

    @override
    def require(self, *, layers: Sequence[int] = (), attention: Sequence[int] = ()) -> None:
        missing = sorted({*layers, *attention} - set(self.layers))
        if missing:
            raise ArtifactError(
                f"teacher layers {missing} are required, the teacher has {len(self.layers)}"
            )
        self.required_layers, self.required_attention = tuple(layers), tuple(attention)
        if attention:
            enable_attention_capture(self.forward.model)

    @override
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        move_unless_offloaded(self.forward, batch.input_ids.device)
        output = self.forward(
            batch,
            layers=self.required_layers,
            attention=self.required_attention,
            form=self.logits_form,
        )
        return Targets(live_output(output), output.hidden, attention=output.heads)


def open_online_teacher(
    artifact: Artifact, *, corpus: Artifact, logits_form: LogitsForm = "full"
) -> OnlineTeacher:
    """The teacher in a checkpoint.

    Raises:
        ArtifactError: its tokenizer is not the corpus's.
    """
    theirs = load_tokenizer(artifact.path)
    ours = load_tokenizer(Corpus(corpus.path).tokenizer_path)
    if difference := identify(theirs).find_difference(identify(ours)):
        raise ArtifactError(describe_difference(str(artifact.path), difference))
    return OnlineTeacher(load_frozen(artifact.path), vocab=len(theirs), logits_form=logits_form)
