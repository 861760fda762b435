"""Broken archives and images: each works, is dropped and counted, or is refused by name."""

import random
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from limbeck.contracts.errors import DataError, ImageError
from limbeck.contracts.records import Drop, Note
from limbeck.data.corpus.image_store import ImageStore
from limbeck.data.readers.image_archive import Config
from limbeck.models.vision.image_processing import open_image
from tests.support.artifacts import draw_discs
from tests.support.mutations import break_file

FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")


@pytest.mark.parametrize("form", FORMATS)
def test_broken_image_files(form, tmp_path):
    """Whatever the bytes, an image or an `ImageError` that names the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    whole = BytesIO()
    Image.fromarray(pixels).save(whole, format=form)
    outcomes = set()
    for seed in range(30):
        path = tmp_path / f"{seed}.{form.lower()}"
        path.write_bytes(whole.getvalue())
        break_file(random.Random(f"{form} {seed}"), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert open_image(path).mode in ("L", "RGB")
                outcomes.add("works")
            except ImageError as error:
                assert str(path) in str(error)
                outcomes.add(error.reason)
    assert len(outcomes) > 1


def break_inside(rng, path, folder):
    """Damage one array of an archive whose own sums then fit."""
    with zipfile.ZipFile(path) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(arrays))
    inner = folder / "array"
    inner.write_bytes(arrays[name])
    break_file(rng, inner)
    arrays[name] = inner.read_bytes() if inner.is_file() else b""
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in arrays.items():
            archive.writestr(key, content)


def test_broken_archives(tmp_path, pack):
    outcomes = set()
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = draw_discs(folder / "discs.npz", train=4, val=2)
        rng = random.Random(f"archive {seed}")
        if seed % 2:
            break_file(rng, path)
        else:
            break_inside(rng, path, folder)
        source = Config.model_validate(
            {
                "path": path,
                "findings": [{"label": 0, "answer": "a"}, {"label": 1, "answer": "b"}],
                "forms": {"train": ["x?"], "evaluation": ["y?"]},
            }
        )
        store = ImageStore(folder)
        try:
            for item in source.read(pack=pack, seed=0):
                if not isinstance(item, Drop | Note):
                    taken = store.take(item, source="discs")
                    outcomes.add("dropped" if isinstance(taken, Drop) else "works")
        except DataError as error:
            assert "discs.npz" in str(error)
            outcomes.add("refused")
    assert {"works", "refused"} <= outcomes
