"""Settings of on-policy distillation."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError, DataError, LaunchError
from limbeck.env.ranks import num_processes
from limbeck.objectives.config import ObjectiveConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.distillation.on_policy import (
        OnPolicyBatches,
        PromptSource,
        SplitByLength,
        WrittenBatches,
    )


class OnPolicy(Config):
    """Sample answers from the student on some steps, and match the teacher's distribution there."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Chance that a step's answers are the student's own (lambda); 0 is off."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling answers; the loss has its own."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that hold so much probability."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Longest answer, in tokens; a longer one is cut there."""
    generation_batch_size: Annotated[int, Field(gt=0)] = 64
    """Answers sampled as one batch; larger batches are faster and hold more memory."""

    def check(self, *, objective: ObjectiveConfig, select: str) -> None:
        """Refuse what cannot be learnt on-policy.

        Raises:
            ValueError: the objective needs written answers, or some records are no questions.
        """
        if self.ratio and not objective.supports_on_policy:
            raise ValueError(
                f"on_policy: objective {objective.kind!r} does not learn from answers that the "
                "student writes itself; use `soft_target`"
            )
        if self.ratio and select not in ("questions", "preferences"):
            raise ValueError(
                f"on_policy: select {select!r} holds plain text too, which has no question; set "
                "batching.select: questions"
            )

    def check_teachers(self, teachers: Sequence[Artifact]) -> None:
        """Refuse teachers whose outputs were recorded before the student sampled anything.

        Raises:
            ArtifactError: a teacher is recorded signals, or the labels of a corpus.
        """
        for teacher in teachers:
            if self.ratio and teacher.manifest.kind != "checkpoint":
                raise ArtifactError(
                    f"{teacher.path}: on_policy needs a teacher that runs on the student's "
                    "samples, and these are recorded signals; name the teacher's checkpoint, "
                    "or set on_policy.ratio: 0"
                )

    def build(
        self,
        *,
        model: "PreTrainedModel",
        records: "PromptSource",
        written: "WrittenBatches",
        split: "SplitByLength",
        max_tokens: int,
        vocab: int,
        end_ids: Collection[int],
        pad_id: int,
        seed: int,
    ) -> "OnPolicyBatches":
        """The batches of a student's training; `vocab` is the size of its teacher's vocabulary.

        Raises:
            DataError: a question has images, or none leaves room for an answer.
            LaunchError: several processes were launched.
        """
        from limbeck.distillation.on_policy import OnPolicyBatches
        from limbeck.models.generation import check_room

        if num_processes() > 1:
            raise LaunchError(
                "on_policy: answers are sampled in one process; run without a launcher"
            )
        if records.has_images:
            raise DataError(
                "on_policy: some selected records have images, and answers are sampled from text "
                "alone; set batching.images: without"
            )
        starts = records.answer_starts[records.ids]
        fitting = starts[starts < max_tokens]
        check_room(
            model,
            longest_tokens=int(fitting.max()) if len(fitting) else max_tokens,
            max_tokens=max_tokens,
            max_new_tokens=self.max_new_tokens,
            field="on_policy.max_new_tokens",
        )
        return OnPolicyBatches(
            self,
            model=model,
            records=records,
            written=written,
            split=split,
            max_tokens=max_tokens,
            vocab=vocab,
            end_ids=end_ids,
            pad_id=pad_id,
            seed=seed,
        )
