"""A live teacher that reads the same records with a tokenizer and a chat template of its own."""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Int
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.records import Record
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.selection import read_selected
from limbeck.data.loading.token_cache import TokenCache
from limbeck.data.loading.tokenized import CHUNK_RECORDS, TokenizedSplit
from limbeck.distillation.targets import Targets, TokenAlignment, live_output
from limbeck.distillation.teachers.base import OutputTeacher
from limbeck.distillation.teachers.offloading import load_frozen, move_unless_offloaded
from limbeck.distillation.tokenizer_alignment import TokenSpellings, align, share_outcomes
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.forward import KeptForward
from limbeck.models.tokenizers import load_tokenizer


class AlignedRecord(NamedTuple):
    """One record in the teacher's tokens, and the spans that both sides have of its answer."""

    ids: Int[np.ndarray, " tokens"]
    answer_start: int
    labels: Int[np.ndarray, " kept"]
    """Every next token that the student's loss is on."""
    student_spans: Int[np.ndarray, " kept"]
    """Of each of these; -1 where there is none."""
    teacher_spans: Int[np.ndarray, " teacher_kept"]
    num_spans: int


class CrossTokenizerTeacher(OutputTeacher):
    """Runs the teacher on its own rendering of a batch's records.

    Only answers are compared: teacher and student render a question by different templates.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        student_tokenizer: PreTrainedTokenizerBase,
        corpus: Corpus,
        records: Mapping[int, Record],
        batching: BatchingConfig,
    ) -> None:
        """A teacher of the given records of the training split, by id.

        Raises:
            CheckpointError: a tokenizer gives no offsets of its tokens.
        """
        self.forward = KeptForward(model.eval().requires_grad_(False))
        self.vocab = len(tokenizer)
        self.pad = cast(int, tokenizer.pad_token_id)
        self.batching = batching
        student, teacher = TokenSpellings(student_tokenizer), TokenSpellings(tokenizer)
        outcomes = share_outcomes(student, teacher)
        self.num_shared, self.num_outcomes = outcomes.shared, outcomes.num
        self.student_outcomes = torch.tensor(outcomes.student)
        self.teacher_outcomes = torch.tensor(outcomes.teacher)
        cache = TokenCache(corpus)
        splits = (
            cache.load("train", tokenizer=student_tokenizer),
            cache.load("train", tokenizer=tokenizer),
        )
        self.reads: dict[int, AlignedRecord] = {}
        for first in range(0, len(records), CHUNK_RECORDS):
            chunk = dict(islice(records.items(), first, first + CHUNK_RECORDS))
            answers = {record_id: record.answer for record_id, record in chunk.items()}
            found = self._read(answers, sides=(student, teacher), splits=splits)
            self.reads |= zip(chunk, found, strict=True)

    def _read(
        self,
        answers: Mapping[int, str],
        *,
        sides: tuple[TokenSpellings, TokenSpellings],
        splits: tuple[TokenizedSplit, TokenizedSplit],
    ) -> list[AlignedRecord]:
        """The records, by the student's and the teacher's spelling and tokens."""
        most = self.batching.max_length
        texts = [side.encode(list(answers.values())) for side in sides]
        found = []
        for (record_id, answer), *encoded in zip(answers.items(), *texts, strict=True):
            # The end of the answer is a token too, one place after its text.
            end = len(answer.encode()) + 1
            starts, ends = [], []
            for split, text in zip(splits, encoded, strict=True):
                answer_start = int(split.answer_starts[record_id])
                room = max(0, most - answer_start)
                starts.append(min(answer_start, most))
                ends.append([*text.ends, end][:room])
            spans = [np.asarray(side, dtype=np.int64) for side in align(*ends)]
            # A sequence's first token follows nothing, so nobody predicts it.
            lost = [side[0] for side, start in zip(spans, starts, strict=True) if not start]
            first = max(lost, default=-1) + 1
            ours_kept, theirs_kept = (
                np.where(side >= first, side - first, -1)[int(not start) :]
                for side, start in zip(spans, starts, strict=True)
            )
            learnt = 1 if self.batching.loss_on == "all" else max(1, starts[0])
            ours, theirs = (split[record_id] for split in splits)
            labels = ours[learnt:most]
            ours_kept = np.concatenate([np.full(len(labels) - len(ours_kept), -1), ours_kept])
            found.append(
                AlignedRecord(
                    theirs[:most],
                    starts[1],
                    labels,
                    ours_kept,
                    theirs_kept,
                    int(theirs_kept.max(initial=-1)) + 1,
                )
            )
        return found

    @override
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The distribution over the teacher's own tokens, and their alignment with the student's.

        Raises:
            ArtifactError: the batch holds other records, or not whole ones.
        """
        record_ids = batch.record_ids.tolist()
        if unknown := [record_id for record_id in record_ids if record_id not in self.reads]:
            raise ArtifactError(
                f"a batch holds record {unknown[0]} (lines of the training split from 0), which "
                "was not read for the teacher; give both the same batching.select"
            )
        reads = [self.reads[record_id] for record_id in record_ids]
        expected = np.concatenate([read.labels for read in reads])
        labels = batch.targets
        if not np.array_equal(labels.cpu().numpy(), expected):
            raise ArtifactError(
                f"a batch has {len(labels)} labels, other ones than the {len(expected)} "
                "of its records: a teacher with another tokenizer reads whole records of the "
                "corpus; start from a student that has the corpus's tokenizer"
            )
        theirs = pad_rows(
            [read.ids for read in reads],
            starts=[read.answer_start for read in reads],
            pad=self.pad,
            record_ids=record_ids,
        ).to(batch.input_ids.device)
        device = batch.input_ids.device
        move_unless_offloaded(self.forward, device)
        output = live_output(self.forward(theirs))
        alignment = TokenAlignment(
            _number([read.student_spans for read in reads], reads=reads, device=device),
            _number([read.teacher_spans for read in reads], reads=reads, device=device),
            theirs.targets,
            self.student_outcomes.to(device),
            self.teacher_outcomes.to(device),
            self.num_outcomes,
        )
        return Targets(output, alignment=alignment)


def _number(
    spans: Sequence[Int[np.ndarray, "..."]], *, reads: Sequence[AlignedRecord], device: torch.device
) -> Int[torch.Tensor, " kept"]:
    """The spans of all records, counted on from one to the next."""
    firsts = np.cumsum([0, *(read.num_spans for read in reads)])
    counted = [
        np.where(side >= 0, side + first, -1)
        for side, (first, _) in zip(spans, pairwise(firsts), strict=True)
    ]
    return torch.from_numpy(np.concatenate(counted)).to(device, torch.int64)


def open_cross_tokenizer_teacher(
    artifact: Artifact, *, corpus: Artifact, batching: BatchingConfig
) -> CrossTokenizerTeacher:
    """The teacher in a checkpoint, whatever its tokenizer.

    Raises:
        ArtifactError: these are signals, or the corpus has images.
    """
    if artifact.manifest.kind != "checkpoint":
        raise ArtifactError(
            f"{artifact.path}: signals hold tokens of one tokenizer, and `cross_tokenizer` reads "
            "text; name the teacher's checkpoint"
        )
    opened = Corpus(corpus.path)
    records = read_selected(opened, batching)
    if any(record.images for record in records.values()):
        raise ArtifactError(
            f"{corpus.path}: selected records have images, and a teacher with another tokenizer "
            "reads text alone; set batching.images: without"
        )
    return CrossTokenizerTeacher(
        load_frozen(artifact.path),
        tokenizer=load_tokenizer(artifact.path),
        student_tokenizer=load_tokenizer(opened.tokenizer_path),
        corpus=opened,
        records=records,
        batching=batching,
    )
