"""Arrays of NumPy archives, read without running code that a file may hold."""

from pathlib import Path

import numpy as np

from limbeck.contracts.errors import DataError
from limbeck.data.readers.base import check_file

AXES = {3: "images, height, width", 4: "images, height, width, channels"}


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
    check_file(path)
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
