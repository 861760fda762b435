"""The entries of a recipe whose models read images: what reads text alone is extended first."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from limbeck.contracts.errors import DataError, ImageError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.data.corpus.image_store import read_image
from limbeck.drafting.findings import FileFindings
from limbeck.drafting.images import list_images
from limbeck.drafting.yaml_text import flow, scalar
from limbeck.models.config import VISION_TYPE, EncoderConfig

MAX_OPENED = 200
"""Images whose sizes are looked at."""
ENCODER_SIZES: Sequence[JsonObject] = (
    {"image_size": 32, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 4},
    {"image_size": 64, "patch_size": 8, "hidden_size": 128, "num_hidden_layers": 4},
    {"image_size": 128, "patch_size": 16, "hidden_size": 128, "num_hidden_layers": 6},
    {"image_size": 224, "patch_size": 16, "hidden_size": 256, "num_hidden_layers": 6},
)
"""Encoders that are trained from nothing, for images of a median side up to `image_size`."""

READ_ALIKE = ("image_size", "num_channels", "patch_size", "spatial_merge_size")
"""What a student and its live teacher have alike."""

EXTENDED = """\
# An image encoder from nothing. Of a few thousand images it learns coarse differences, no more.
{name}: {{stage: extend, checkpoint: {checkpoint}, encoder: {encoder}}}

"""
ALIGNED = """\
aligned:
  stage: train
  model: extended
  corpus: corpus
  # The language model stays as it is; the encoder learns to give it what the answers need.
  objective: {{kind: next_token, trained: encoder}}
  batching: {{per_device_train_batch_size: 8, gradient_accumulation_steps: 4, \
max_length: {max_length}, images: with}}
  training: {{max_steps: {steps}, learning_rate: 0.001}}

"""
TUNED = """\
teacher:
  stage: train
  model: aligned
  corpus: corpus
  objective: {{kind: next_token}}
  batching: {{per_device_train_batch_size: 8, gradient_accumulation_steps: 4, \
max_length: {max_length}}}
  training: {{max_steps: {steps}, learning_rate: 0.00002}}

"""


@dataclass(frozen=True)
class VisionDraft:
    """How the models of a recipe read images."""

    encoder: JsonObject
    teacher_reads_images: bool
    student_reads_images: bool
    """As the models are named; what does not is extended."""
    tokens_per_image: int


def draft_vision(
    findings: FileFindings, *, teacher: JsonMapping, student: JsonMapping | None
) -> VisionDraft:
    """What reads a file's images, by the `config.json` of the teacher and of a named student.

    An encoder that one of them has is the other's too, since both must read images alike.

    Raises:
        DataError: they have encoders that read images differently.
        ImageError: no image of the file can be opened.
    """
    able = [item for item in (teacher, student or {}) if item.get("model_type") == VISION_TYPE]
    encoders = [_describe_encoder(item) for item in able] or [_choose_encoder(findings)]
    encoder = encoders[0]
    unlike = [key for key in READ_ALIKE if encoder[key] != encoders[-1][key]]
    if unlike:
        found = ", ".join(f"{key} {encoder[key]} and {encoders[-1][key]}" for key in unlike)
        raise DataError(
            f"teacher and student read images differently ({found}); name a student of the same "
            "sizes, or one that reads text alone"
        )
    side = encoder["image_size"] // encoder["patch_size"] // encoder["spatial_merge_size"]
    return VisionDraft(
        encoder,
        teacher in able,
        student in able,
        side * side,
    )


def _describe_encoder(config: JsonMapping) -> JsonObject:
    """The encoder of a model that reads images."""
    vision = config["vision_config"]
    described = {key: vision[key] for key in EncoderConfig.model_fields if key in vision}
    return described | {"spatial_merge_size": config["spatial_merge_size"]}


def _choose_encoder(findings: FileFindings) -> JsonObject:
    """A fresh encoder for images of the file's size and colour."""
    names = list_images(findings.records)[:MAX_OPENED]
    opened = []
    for name in names:
        with suppress(ImageError):  # `prepare` drops such a row and names it
            opened.append(read_image(name))
    if not opened:
        read_image(names[0])
    chosen = next(
        (item for item in ENCODER_SIZES if item["image_size"] >= _median_side(opened)),
        ENCODER_SIZES[-1],
    )
    width = chosen["hidden_size"]
    return {
        **chosen,
        "spatial_merge_size": 2,
        "num_channels": 1 if all(image.mode == "L" for image in opened) else 3,
        "num_attention_heads": width // 16 if width < 256 else width // 64,
        "intermediate_size": 4 * width,
    }


def _median_side(images: Sequence[Image]) -> float:
    return float(np.median([math.sqrt(image.width * image.height) for image in images]))


@dataclass(frozen=True)
class Readers:
    """The teacher and the student of a recipe as its entries name them, and what makes them."""

    teacher: str
    student: str
    entries: str = ""


def draft_readers(
    vision: VisionDraft,
    *,
    teacher: str,
    student: str | JsonObject,
    max_length: int,
    image_steps: int,
    steps: int,
) -> Readers:
    """A teacher and a student that read images, by a text teacher's and a student's name.

    A fresh student is a description. `image_steps` are for the rows with images, `steps` for all.
    """
    entries = []
    encoder = flow(vision.encoder)
    if not vision.teacher_reads_images:
        entries.append(
            EXTENDED.format(name="extended", checkpoint=scalar(teacher), encoder=encoder)
        )
        entries.append(ALIGNED.format(max_length=max_length, steps=image_steps))
        entries.append(TUNED.format(max_length=max_length, steps=steps))
        teacher = "teacher"
    if not isinstance(student, str):
        described = {"kind": "vision", "text": student, "encoder": vision.encoder}
        found = f"{flow(described)}\n  initialize_from: {scalar(teacher)}"
    elif vision.student_reads_images:
        found = scalar(student)
    else:
        found = "start_extended"
        entries.append(EXTENDED.format(name=found, checkpoint=scalar(student), encoder=encoder))
    return Readers(scalar(teacher), found, "".join(entries))
