"""Labelled images in NumPy archives as MedMNIST writes them, several questions an image."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.config import Config as BaseConfig
from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import NonNegativeInt, PositiveInt, Text, Texts
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Drop, Note, Question, Reason, Record
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.packs.fact_questions import draw
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import FileReaderConfig, ReaderItem
from limbeck.data.readers.classification import TASK_NAME
from limbeck.data.readers.numpy_archive import read_array, read_image_array

UNKNOWN_LABEL = Reason("unknown_label", "标签无含义", "label without a meaning")


class ImageLabel(BaseConfig):
    """What one label means."""

    label: NonNegativeInt
    """As the archive has it."""
    answer: Text
    forms_per_image: PositiveInt = 1
    """Training forms of each such image; more of them for rarer findings even the answers out."""


class ImageForms(BaseConfig):
    """How images are asked about."""

    train: Texts
    evaluation: Texts
    """Never trained on; each image of the evaluation is asked about in all of them."""


class Config(FileReaderConfig):
    """Images with labels in a NumPy archive: `train_images`, `train_labels`, `val_images`, ..."""

    kind: Literal["images"] = "images"
    task: Annotated[str, Field(pattern=TASK_NAME.pattern)] = "finding"
    """What the evaluation calls it."""
    findings: Annotated[tuple[ImageLabel, ...], Field(min_length=2)]
    """What the labels mean; answers of like length, for they are compared per token."""
    forms: ImageForms
    evaluation_split: Literal["val", "test"] = "val"
    """Which arrays are only asked about; `train_*` is trained on."""
    specialty: str = ""

    @model_validator(mode="after")
    def _check_findings(self) -> "Config":
        labels = [finding.label for finding in self.findings]
        answers = [finding.answer for finding in self.findings]
        for what, values in (("label", labels), ("answer", answers)):
            if len(set(values)) != len(values):
                raise ValueError(f"two findings share one {what}: {values}")
        both = set(map(normalise, self.forms.train)) & set(map(normalise, self.forms.evaluation))
        if both:
            raise ValueError(f"a form is for training and for evaluation at once: {sorted(both)}")
        return self

    @property
    @override
    def domain_need(self) -> str:
        return "`specialty`" if self.specialty else ""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        if self.specialty and self.specialty not in pack.description.specialties:
            known = ", ".join(pack.description.specialties)
            raise DataError(f"specialty {self.specialty!r} is not the pack's; known: {known}")
        asked = read_image_array(self.path, f"{self.evaluation_split}_images")
        held_out = {_digest(image) for image in asked}
        yield from self._records(held_out, seed=seed)
        yield from self._questions()

    def _records(self, held_out: set[bytes], *, seed: int) -> Iterator[ReaderItem]:
        images = read_image_array(self.path, "train_images")
        counts = dict.fromkeys((finding.answer for finding in self.findings), 0)
        for index, found in enumerate(self._labels("train", count=len(images))):
            place = f"{self.path.name}:train_images/{index}"
            if isinstance(found, Drop):
                yield found
                continue
            if _digest(images[index]) in held_out:
                yield Drop(IN_EVALUATION, self.label, place)
                continue
            counts[found.answer] += 1
            forms = self.forms.train
            count = min(found.forms_per_image, len(forms))
            chosen = draw(seed, self.label, index).sample(range(len(forms)), count)
            for form in sorted(chosen):
                yield Record(
                    id=f"{self.label}:train/{index}/{form}",
                    question=forms[form],
                    answer=found.answer,
                    group=f"{self.label}|train/{index}",
                    source=self.label,
                    specialty=self.specialty,
                    images=(self._reference("train", index),),
                    place=place,
                )
        yield Note("images", counts)

    def _questions(self) -> Iterator[ReaderItem]:
        split = self.evaluation_split
        count = len(read_image_array(self.path, f"{split}_images"))
        options = tuple(finding.answer for finding in self.findings)
        for index, found in enumerate(self._labels(split, count=count)):
            if isinstance(found, Drop):
                yield dataclasses.replace(found, reason=found.reason.in_evaluation_file())
                continue
            for form, text in enumerate(self.forms.evaluation):
                yield Question(
                    id=f"{self.label}:{split}/{index}/{form}",
                    task=self.task,
                    question=text,
                    answers=(found.answer,),
                    form="single",
                    options=options,
                    specialty=self.specialty,
                    group=f"{self.label}|{split}/{index}",
                    images=(self._reference(split, index),),
                )

    def _labels(self, split: str, *, count: int) -> Iterator[ImageLabel | Drop]:
        """What each image shows, or a drop for a label without a meaning."""
        name = f"{split}_labels"
        labels = read_array(self.path, name)
        if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
            raise DataError(
                f"array {name!r} holds {labels.dtype} of shape {list(labels.shape)}, expected one "
                f"whole number for each of {count} images",
                path=self.path,
            )
        findings = {finding.label: finding for finding in self.findings}
        for index, label in enumerate(labels.reshape(-1).tolist()):
            place = f"{self.path.name}:{name}/{index}"
            known = ", ".join(map(str, findings))
            detail = f"label {label}, known: {known}"
            yield findings.get(label) or Drop(UNKNOWN_LABEL, self.label, place, detail)

    def _reference(self, split: str, index: int) -> str:
        return f"{self.path}#{split}_images/{index}"


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
