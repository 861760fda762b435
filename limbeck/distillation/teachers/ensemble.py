"""Several teachers as one: their softened distributions mixed, or one chosen for each record.

Of every two that soften to p1 and p2 at the objective's temperature, the mix softens to
w1 p1 + w2 p2, so learning from it is learning from both (Hinton et al. 2015, arXiv:1503.02531).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import Batches
from limbeck.distillation.targets import FullLogits, LogProbs, Targets, TeacherOutput
from limbeck.distillation.teachers.base import OutputTeacher, Teacher
from limbeck.distillation.teachers.config import ConfidenceMeasure, Teachers
from limbeck.models.batch import Batch, Images


class MixedTeacher(OutputTeacher):
    """The weighted mean of several teachers' distributions at each token."""

    def __init__(
        self, teachers: Sequence[Teacher], *, config: Teachers, temperature: float
    ) -> None:
        """Teachers of one vocabulary."""
        self.teachers = tuple(teachers)
        self.vocab = teachers[0].vocab
        self.config = config
        self.temperature = temperature
        self.weights = torch.tensor(config.weights or (1.0,) * len(teachers))

    @override
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Targets:
        """The full mix at each kept position.

        Raises:
            ArtifactError: a teacher's signals hold sampled tokens.
        """
        logs = torch.stack(
            [
                full_log_probs(
                    teacher(batch).output, vocab=self.vocab, temperature=self.temperature
                )
                for teacher in self.teachers
            ]
        )
        weights = self.weights.to(logs.device)[:, None].expand(logs.shape[:2])
        if self.config.mix == "confidence":
            weights = weights * measure_confidence(logs, by=self.config.confidence)
        mixed = mix_logs(logs, weights=weights)
        return Targets(FullLogits(mixed * self.temperature))

    @override
    def close(self) -> None:
        for teacher in self.teachers:
            teacher.close()


def mix_logs(
    logs: Float[Tensor, "teachers kept vocab"], *, weights: Float[Tensor, "teachers kept"]
) -> LogProbs:
    """Log of the mean of probabilities, by weights that need not sum to one."""
    shares = (weights / weights.sum(dim=0)).log()
    return (logs + shares.unsqueeze(2)).logsumexp(dim=0)


def measure_confidence(
    logs: Float[Tensor, "teachers kept vocab"], *, by: ConfidenceMeasure
) -> Float[Tensor, "teachers kept"]:
    """Each teacher's confidence in each token, from almost 0 to 1.

    By entropy: Kwon et al. 2020 (doi:10.1109/ICASSP40776.2020.9054698).
    """
    if by == "max_probability":
        return logs.max(dim=-1).values.exp()
    entropy = -(logs.exp() * logs.clamp(min=-80.0)).sum(dim=-1)
    # Teachers that are all uncertain still count alike.
    return (1 - entropy / math.log(max(2, logs.shape[2]))).clamp(min=1e-6)


def full_log_probs(output: TeacherOutput, *, vocab: int, temperature: float) -> LogProbs:
    """A teacher's log-probabilities of all tokens at a temperature.

    Raises:
        ArtifactError: the output is a sample, which lacks the tokens that were not drawn.
    """
    if output.is_sample:
        raise ArtifactError(
            "signals with drawn tokens cannot be mixed with another teacher's: record top tokens, "
            "or choose teachers by `mix: specialty`"
        )
    return output.log_probs(vocab=vocab, temperature=temperature)


class SpecialtyTeacher(OutputTeacher):
    """For each record the one teacher of its specialty."""

    def __init__(
        self, teachers: Sequence[Teacher], *, choices: Mapping[int, int], temperature: float
    ) -> None:
        """Teachers of one vocabulary, and the place of each record's, by record id."""
        self.teachers = tuple(teachers)
        self.choices = dict(choices)
        self.vocab = teachers[0].vocab
        self.temperature = temperature

    @override
    def __call__(self, batch: Batch) -> Targets:
        """The chosen teachers' targets, in the order of the batch's kept positions.

        Raises:
            ArtifactError: a row of the batch is not one record, or a record has no teacher.
        """
        if len(batch.record_ids) != len(batch.input_ids):
            raise ArtifactError(
                f"a batch has {len(batch.input_ids)} rows of {len(batch.record_ids)} records; "
                "teachers by specialty want one record a row: set batching.packing: none"
            )
        record_ids = batch.record_ids.tolist()
        if unknown := [record_id for record_id in record_ids if record_id not in self.choices]:
            raise ArtifactError(
                f"record {unknown[0]} (lines of the training split from 0) has no teacher: it was "
                "not selected when the teachers were opened; give both the same batching.select"
            )
        chosen = torch.tensor([self.choices[record_id] for record_id in record_ids])
        # Each kept position belongs to the record of its row.
        owners = chosen[batch.kept.nonzero()[:, 0].cpu()]
        outputs, places = [], []
        for number in chosen.unique().tolist():
            part = take_rows(batch, (chosen == number).nonzero().flatten())
            outputs.append(self.teachers[number](part).output)
            places.append((owners == number).nonzero().flatten())
        order = torch.cat(places).argsort().to(batch.input_ids.device)
        return Targets(self._cat(outputs).rows(order))

    def _cat(self, outputs: Sequence[TeacherOutput]) -> TeacherOutput:
        """One after the other: in their own form, or as full logits where forms differ."""
        joined = outputs[0].cat(outputs[1:])
        if joined is not None:
            return joined
        logs = [
            full_log_probs(item, vocab=self.vocab, temperature=self.temperature) for item in outputs
        ]
        return FullLogits(torch.cat(logs) * self.temperature)

    @override
    def close(self) -> None:
        for teacher in self.teachers:
            teacher.close()


def take_rows(batch: Batch, rows: Int[Tensor, " chosen"]) -> Batch:
    """Some rows of a batch, with their images."""
    rows = rows.to(batch.input_ids.device)
    images = batch.images
    if images is not None:
        held = torch.isin(images.rows, rows)
        renumbered = torch.searchsorted(rows, images.rows[held])
        images = Images(images.pixels[held], renumbered) if held.any() else None
    return Batch(
        batch.input_ids[rows],
        batch.labels[rows],
        batch.record_ids[rows],
        batch.tokens[rows],
        images,
    )


def combine_teachers(
    teachers: Mapping[str, Teacher],
    *,
    config: Teachers,
    batches: Batches,
    temperature: float,
) -> MixedTeacher | SpecialtyTeacher:
    """Several teachers, by name, as one.

    Raises:
        ArtifactError: their vocabularies differ, or a record has no teacher.
    """
    vocabs = {name: teacher.vocab for name, teacher in teachers.items()}
    if len(set(vocabs.values())) > 1:
        raise ArtifactError(
            f"teachers count tokens differently: {vocabs}; several teachers must share one "
            "tokenizer and vocabulary"
        )
    opened = tuple(teachers.values())
    if config.mix == "specialty":
        choices = _choose(batches, names=tuple(teachers), config=config)
        return SpecialtyTeacher(opened, choices=choices, temperature=temperature)
    return MixedTeacher(opened, config=config, temperature=temperature)


def _choose(batches: Batches, *, names: Sequence[str], config: Teachers) -> dict[int, int]:
    """The place of each selected record's teacher, by record id."""
    value_of = batches.records.specialty if config.by == "specialty" else batches.records.source
    values = {record_id: value_of(record_id) for record_id in batches.records.ids.tolist()}
    known = {
        value: config.specialties.get(value, config.otherwise) for value in set(values.values())
    }
    if lacking := sorted(value for value, name in known.items() if not name):
        raise ArtifactError(
            f"{batches.records.path}: records of {config.by} {lacking} have no teacher: name one "
            "for each in teachers.specialties, or one for all in teachers.otherwise"
        )
    if strange := sorted(config.specialties.keys() - known.keys()):
        raise ArtifactError(
            f"teachers.specialties names {strange}, the selected records have {config.by} "
            f"{sorted(known)}; correct the name, or remove it"
        )
    return {index: list(names).index(known[value]) for index, value in values.items()}
