"""Opening images of every kind, one way to preprocess them, and names for what is wrong."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from limbeck.contracts.errors import ImageError
from limbeck.models.vision import image_processing
from limbeck.models.vision.image_processing import (
    ImageFormat,
    open_image,
    preprocess,
)

COLOUR = ImageFormat(side_pixels=16, channels=3, mean=0.5, std=0.5, num_tokens=4, token_id=7)
GREY = ImageFormat(side_pixels=16, channels=1, mean=0.5, std=0.5, num_tokens=4, token_id=7)


def picture(mode="RGB", size=(20, 12)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).convert(
        mode
    )


def written(image, form="PNG"):
    file = BytesIO()
    image.save(file, format=form)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_grey_or_colour(mode):
    found = open_image(written(picture(mode)))
    assert found.mode == ("L" if mode in ("1", "L", "LA") else "RGB")
    assert found.size == (20, 12)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_agree(form):
    image = picture("L")
    found = open_image(written(image, form)).convert("L") if form != "WEBP" else image
    assert np.array_equal(np.asarray(found), np.asarray(image))


def test_sixteen_bits_become_eight():
    values = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    found = np.asarray(open_image(written(Image.fromarray(values))))
    assert np.array_equal(found, values // 256)


def test_pixels_are_those_of_the_siglip_processor():
    image = picture()
    processor = SiglipImageProcessorPil(
        size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(image, COLOUR), expected, atol=1e-5)


def test_grey_and_colour_have_their_channels():
    assert preprocess(picture(), GREY).shape == (1, 16, 16)
    assert preprocess(picture("L"), COLOUR).shape == (3, 16, 16)
    white = Image.new("L", (5, 9), 255)
    assert np.all(preprocess(white, GREY) == 1.0)


def test_bad_images_are_named(tmp_path):
    whole = written(picture(size=(200, 200)))
    cases = {
        "image_missing": None,
        "image_unreadable": b"no image at all",
        "image_damaged": whole[:3000],
    }
    for reason, content in cases.items():
        path = tmp_path / f"{reason}.png"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageError, match=str(path)) as caught:
            open_image(path)
        assert caught.value.reason == reason
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    with pytest.raises(ImageError):
        open_image(empty)


def test_an_absurdly_large_image_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(image_processing, "MOST_PIXELS", 100)
    with pytest.raises(ImageError, match="20 x 12 pixels") as caught:
        open_image(written(picture()))
    assert caught.value.reason == "image_too_large"


@pytest.mark.parametrize("limit", [40, 150])
def test_pillows_own_limit_is_no_traceback(monkeypatch, limit):
    """Above twice its limit Pillow raises, above the limit it warns."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError) as caught:
        open_image(written(picture()))
    assert caught.value.reason == "image_too_large"


def test_floats_are_no_image():
    with pytest.raises(ImageError) as caught:
        open_image(written(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))
    assert caught.value.reason == "image_mode"
