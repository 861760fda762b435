"""Images as a model reads them: opening whatever a file holds, and one way to turn it into pixels.

Training and answering use the same two functions.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

from limbeck.contracts.errors import ImageError

MOST_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16L", "I;16B"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
DEEP_GREY = frozenset({"I;16", "I;16L", "I;16B"})
SIXTEEN_TO_EIGHT_BITS = 256


@dataclass(frozen=True)
class ImageFormat:
    """How one model reads every image: what `pixel_values` hold, and the tokens they become."""

    side_pixels: int
    """Images are resized to a square of this side."""
    channels: int
    """1 for grey, 3 for colour."""
    mean: float
    """Subtracted from values between 0 and 1."""
    std: float
    """What they are divided by after that."""
    num_tokens: int
    """Merged patches of one image: so many image tokens stand in the prompt."""
    token_id: int
    """Of the image token."""


def open_image(source: Path | bytes, *, place: str = "") -> Image.Image:
    """The first frame of an image file, upright, as 8-bit grey (`L`) or colour (`RGB`).

    Raises:
        ImageError: it is missing, no image, cut short, empty, absurdly large, or of an odd kind.
    """
    where = place or str(source if isinstance(source, Path) else "image")
    if isinstance(source, Path) and not source.is_file():
        raise ImageError("no such image; check the path", reason="image_missing", path=where)
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as opened:
            _check_size(opened, where)
            opened.load()
            return _to_eight_bits(ImageOps.exif_transpose(opened), where)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"is absurdly large ({error}); make it smaller", reason="image_too_large", path=where
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            "is no image that can be read; give a PNG, a JPEG or the like",
            reason="image_unreadable",
            path=where,
        ) from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise ImageError(
            f"is a damaged image ({str(error)[:200] or type(error).__name__}); copy it again",
            reason="image_damaged",
            path=where,
        ) from error


def _check_size(image: Image.Image, where: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"is {width} x {height} pixels", reason="image_empty", path=where)
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"is {width} x {height} pixels, expected at most {MOST_PIXELS:,} in all; make it "
            "smaller",
            reason="image_too_large",
            path=where,
        )


def _to_eight_bits(image: Image.Image, where: str) -> Image.Image:
    if image.mode in DEEP_GREY:
        values = np.asarray(image).astype(np.uint16) // SIXTEEN_TO_EIGHT_BITS
        return Image.fromarray(values.astype(np.uint8))
    if image.mode in GREY_MODES:
        return image.convert("L")
    if image.mode in COLOUR_MODES:
        return image.convert("RGB")
    raise ImageError(
        f"holds pixels of mode {image.mode!r}, expected grey or colour of 8 or 16 bits; convert it",
        reason="image_mode",
        path=where,
    )


def preprocess(
    image: Image.Image, image_format: ImageFormat
) -> Float[np.ndarray, "channels height width"]:
    """The pixels that the model reads: squared by bicubic resizing, then normalised."""
    side = image_format.side_pixels
    image = image.convert("L" if image_format.channels == 1 else "RGB")
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32).reshape(side, side, image_format.channels) / 255
    return (pixels.transpose(2, 0, 1) - image_format.mean) / image_format.std


def read_pixels(
    path: Path, image_format: ImageFormat
) -> Float[np.ndarray, "channels height width"]:
    """The pixels of an image file.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    return preprocess(open_image(path), image_format).astype(np.float32)
