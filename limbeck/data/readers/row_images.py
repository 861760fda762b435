"""The images of a row: paths in a column or in its messages, and their marks in a question."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.contracts.records import Reason
from limbeck.data.readers.messages import Conversation
from limbeck.data.readers.row_values import IMAGES_NOT_READ, WRONG_TYPE, RowError, is_missing

MARK = "<image>"
"""Where LLaVA's conversations show an image; a template has a place of its own for it."""
DEFAULT_COLUMN = "images"
OTHER_COLUMN = "image"
INLINE = "data:image/"
"""How the name begins that holds the image itself (a data URL, RFC 2397)."""
IMAGE_OUTSIDE = Reason("image_outside", "图像在文件夹外", "image outside the folder")


def take_images(
    found: Conversation, values: JsonMapping, *, column: str, folder: str
) -> tuple[Conversation, tuple[str, ...]]:
    """A row's conversation without marks of images, and the paths of its images."""
    value = values.get(column)
    if column == DEFAULT_COLUMN and is_missing(value):
        value = values.get(OTHER_COLUMN)
    names = dict.fromkeys((*_names(value), *found.images))
    paths = _resolve(list(names), folder=folder)
    num_marks = [turn.question.count(MARK) for turn in found.turns]
    if not paths or not any(num_marks):
        return found, paths
    if num_marks[0] != len(paths) or any(num_marks[1:]):
        detail = f"{sum(num_marks)} marks {MARK} for {len(paths)} images of the first question"
        raise RowError(IMAGES_NOT_READ, detail)
    first = found.turns[0]
    question = first.question.replace(f"{MARK}\n", "").replace(f"\n{MARK}", "").replace(MARK, "")
    if not question.strip():
        raise RowError(IMAGES_NOT_READ, "an image without a question")
    return replace(found, turns=(replace(first, question=question), *found.turns[1:])), paths


def _names(value: Json) -> Sequence[str]:
    if is_missing(value) or value == "":
        return ()
    found = [value] if isinstance(value, str | Mapping) else value
    names = [_name_of(item) for item in found] if isinstance(found, Sequence) else [None]
    if not all(names):
        raise RowError(WRONG_TYPE, f"images are {str(value)[:80]!r}, expected paths")
    return [name for name in names if name]


def _name_of(item: object) -> str | None:
    """A path, or the image itself as a data URL; `datasets` stores both in one cell."""
    if isinstance(item, Mapping):
        content, path = item.get("bytes"), item.get("path")
        if isinstance(content, bytes):
            return f"{INLINE}*;base64,{base64.b64encode(content).decode()}"
        item = path
    return item if isinstance(item, str) else None


def _resolve(names: Sequence[str], *, folder: str) -> tuple[str, ...]:
    """The paths of images, none of them outside the folder; one in the row stays as it is."""
    files = [name for name in names if not name.startswith(INLINE)]
    remote = [name for name in files if "://" in name or name.startswith("data:")]
    if remote:
        raise RowError(IMAGES_NOT_READ, f"{remote[0][:80]!r} is no file; save it as one")
    if files and not folder:
        raise RowError(IMAGES_NOT_READ, f"names {files[0]!r}; set image_folder on the source")
    root = Path(folder).resolve()
    outside = [name for name in files if root not in (root / name).resolve().parents]
    if outside:
        raise RowError(IMAGE_OUTSIDE, f"{outside[0]!r} lies outside {folder}")
    return tuple(
        name if name.startswith(INLINE) else str((root / name).resolve()) for name in names
    )
