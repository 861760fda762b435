"""Pixels of a corpus's images, read when a batch needs them and kept while there is room."""

from collections.abc import Sequence

import numpy as np
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.models.batch import Images
from limbeck.models.vision.image_processing import ImageFormat, read_pixels

MOST_CACHED_BYTES = 1 << 28


class Pixels:
    """The images of one corpus, in the format of one model."""

    def __init__(self, corpus: Corpus, *, image_format: ImageFormat | None) -> None:
        self.corpus = corpus
        self.image_format = image_format
        self._cache: dict[str, np.ndarray] = {}
        self._cached_bytes = 0

    def gather(self, names: Sequence[Sequence[str]]) -> Images | None:
        """The images of a batch's records, in order; None where no record has any.

        Raises:
            ImageError: a file of the corpus is missing or damaged.
        """
        rows = [row for row, images in enumerate(names) for _ in images]
        if not rows:
            return None
        pixels = np.stack([self._read(name) for images in names for name in images])
        return Images(torch.from_numpy(pixels), torch.tensor(rows, dtype=torch.int64))

    def _read(self, name: str) -> np.ndarray:
        if name in self._cache:
            return self._cache[name]
        assert self.image_format is not None
        pixels = read_pixels(self.corpus.folder / name, self.image_format)
        if self._cached_bytes + pixels.nbytes <= MOST_CACHED_BYTES:
            self._cache[name] = pixels
            self._cached_bytes += pixels.nbytes
        return pixels
