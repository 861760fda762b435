"""The corpus's own copies of its images: checked, as PNG, named by their content.

A corpus so stands alone, and one image has one name, wherever it was read.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from limbeck.contracts.errors import DataError, ImageError
from limbeck.contracts.records import Drop, Question, Record
from limbeck.models.vision.image_processing import open_image

FOLDER = "images"
NAME_CHARS = 32
IN_ARRAY = re.compile(r"(?P<path>.*\.npz)#(?P<array>\w+)/(?P<index>\d+)")
"""How a source names an image that is a row of an array."""
AXES = {3: "images, height, width", 4: "images, height, width, channels"}


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
            return Drop(error.reason, source, place or item.id, str(error)[:200])
        return dataclasses.replace(item, images=names, group=f"{'+'.join(names)}")

    def _take(self, reference: str) -> str:
        if reference not in self._names:
            self._names[reference] = self._store(self._read(reference))
        return self._names[reference]

    def _read(self, reference: str) -> Image.Image:
        match = IN_ARRAY.fullmatch(reference)
        if match is None:
            return open_image(Path(reference))
        key = f"{match['path']}#{match['array']}"
        if self._open[0] != key:
            self._open = (key, read_image_array(Path(match["path"]), match["array"]))
        return Image.fromarray(_squeeze(self._open[1][int(match["index"])]))

    def _store(self, image: Image.Image) -> str:
        digest = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes())
        name = f"{FOLDER}/{digest.hexdigest()[:NAME_CHARS]}.png"
        path = self.corpus / name
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            written = BytesIO()
            image.save(written, format="PNG")
            path.write_bytes(written.getvalue())
        return name


def read_image_array(path: Path, name: str) -> np.ndarray:
    """The images of a NumPy archive, 8 bits a channel, one a row.

    Raises:
        DataError: there is no such archive or array, or it holds no images.
    """
    found = read_array(path, name)
    if found.ndim not in AXES or (found.ndim == 4 and found.shape[3] not in (1, 3)):
        raise DataError(
            f"array {name!r} has shape {list(found.shape)}, expected {AXES[3]}, or {AXES[4]} with "
            "1 or 3 channels",
            path=path,
        )
    if found.dtype != np.uint8:
        raise DataError(f"array {name!r} holds {found.dtype}, expected uint8", path=path)
    if 0 in found.shape:
        raise DataError(f"array {name!r} has shape {list(found.shape)}: no pixel", path=path)
    return found


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of a NumPy archive, without running code that it may hold.

    Raises:
        DataError: there is no such archive or array, or it is damaged.
    """
    if not path.is_file():
        raise DataError("no such file; check the path in the recipe", path=path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError("is one array, expected an archive (.npz) of several", path=path)
            if name not in archive.files:
                known = ", ".join(archive.files) or "none"
                raise DataError(f"has no array {name!r}; arrays: {known}", path=path)
            found = archive[name]
            if not isinstance(found, np.ndarray):
                raise DataError(f"holds bytes under {name!r}, expected an array", path=path)
            return found
    except DataError:
        raise
    except Exception as error:  # numpy raises whatever damaged bytes lead it to
        message = f"is no NumPy archive that can be read: {str(error)[:200]}"
        raise DataError(message, path=path) from None


def _squeeze(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def image_names(items: Sequence[Record] | Sequence[Question]) -> Iterator[str]:
    """Every image of the items; equal images have equal names."""
    for item in items:
        yield from item.images
