"""The corpus's own copies of its images: checked, as PNG, named by their content.

A corpus so stands alone, and one image has one name, wherever it was read.
"""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from limbeck.contracts.corpus import IMAGES
from limbeck.contracts.errors import ImageError
from limbeck.contracts.records import Drop, Question, Reason, Record
from limbeck.data.readers.numpy_archive import read_image_array
from limbeck.data.readers.row_images import INLINE
from limbeck.models.vision.image_processing import open_image

NAME_CHARS = 32
REASONS = {
    reason.key: reason
    for reason in (
        Reason("image_missing", "图像缺失", "image missing"),
        Reason("image_unreadable", "不是图像", "not an image"),
        Reason("image_damaged", "图像损坏", "image damaged"),
        Reason("image_empty", "图像为空", "image without pixels"),
        Reason("image_too_large", "图像过大", "image too large"),
        Reason("image_mode", "图像格式不支持", "image mode not supported"),
    )
}
"""What an image that cannot be used is counted under, by the key that its error gives."""
IN_ARRAY = re.compile(r"(?P<path>.*\.npz)#(?P<array>\w+)/(?P<index>\d+)")
"""How a source names an image that is a row of an array."""


class ImageStore:
    """Takes the images of records and questions into a corpus's folder."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self._names: dict[str, str] = {}
        self._open: tuple[str, np.ndarray] = ("", np.zeros(0))

    def take(self, item: Record | Question, *, source: str) -> Record | Question | Drop:
        """The item with its images in the corpus, or the reason why one of them is no use.

        A record's group then holds its images, so that one image never stands in two splits.
        """
        try:
            names = tuple(self._take(reference) for reference in item.images)
        except ImageError as error:
            place = item.place if isinstance(item, Record) else item.id
            return Drop(REASONS[error.reason], source, place or item.id, str(error)[:200])
        return dataclasses.replace(item, images=names, group=f"{'+'.join(names)}")

    def _take(self, reference: str) -> str:
        if reference not in self._names:
            self._names[reference] = self._store(self._read(reference))
        return self._names[reference]

    def _read(self, reference: str) -> Image.Image:
        match = None if reference.startswith(INLINE) else IN_ARRAY.fullmatch(reference)
        if match is None:
            return read_image(reference)
        key = f"{match['path']}#{match['array']}"
        if self._open[0] != key:
            self._open = (key, read_image_array(Path(match["path"]), match["array"]))
        return Image.fromarray(_squeeze(self._open[1][int(match["index"])]))

    def _store(self, image: Image.Image) -> str:
        digest = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes())
        name = f"{IMAGES}/{digest.hexdigest()[:NAME_CHARS]}.png"
        path = self.corpus / name
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            written = BytesIO()
            image.save(written, format="PNG")
            path.write_bytes(written.getvalue())
        return name


def read_image(reference: str) -> Image.Image:
    """The image in a file, or in the row itself, as `open_image` gives it.

    Raises:
        ImageError: it cannot be used.
    """
    if reference.startswith(INLINE):
        return open_image(_decode(reference), place="an image in the row")
    return open_image(Path(reference))


def _decode(reference: str) -> bytes:
    """The bytes of an image inside a row; as much as can be read of a damaged one."""
    _, _, content = reference.partition(",")
    try:
        return base64.b64decode("".join(content.split()))
    except ValueError:
        return b""


def _squeeze(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def image_names(items: Sequence[Record] | Sequence[Question]) -> Iterator[str]:
    """Every image of the items; equal images have equal names."""
    for item in items:
        yield from item.images
