"""The images that a file's rows are about: where they lie, and whether models are to read them."""

from collections.abc import Sequence
from pathlib import Path

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Record
from limbeck.data.readers.row_images import IMAGE_OUTSIDE, INLINE
from limbeck.drafting.findings import FileFindings

FOLDER = "image_folder"


def place_images(source: JsonObject, findings: FileFindings) -> JsonObject:
    """The source, with the folder of images only where its rows name some.

    Raises:
        DataError: a row names an image that is not there.
    """
    folder = source.get(FOLDER, "")
    outside = findings.dropped.get(IMAGE_OUTSIDE.key, [])
    if outside:
        raise DataError(
            f"{len(outside)} rows name images outside {folder}, such as {outside[0].detail}; name "
            "the folder that holds all of them with --images",
            path=source["name"],
        )
    files = [name for name in list_images(findings.records) if not name.startswith(INLINE)]
    missing = [name for name in files if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"{findings.num_with_images} of its {len(findings.records)} rows are about images, and "
            f"{len(missing)} of these are not there, such as {missing[0]}; name their folder with "
            "--images",
            path=source["name"],
        )
    return source if files else {key: value for key, value in source.items() if key != FOLDER}


def choose_vision(findings: FileFindings, *, wanted: bool | None, data: str) -> bool:
    """Whether the recipe's models are to read images: as wanted, or where most rows have some.

    Raises:
        DataError: what is wanted cannot be had from the file.
    """
    count, total = findings.num_with_images, len(findings.records)
    if wanted and not count:
        raise DataError("--vision: none of its rows is about an image", path=data)
    if wanted is False and count == total:
        raise DataError(
            f"all of its {count} rows are about images, and --no-vision trains on text alone; "
            "leave it out",
            path=data,
        )
    return 2 * count > total if wanted is None else wanted


def describe_images(findings: FileFindings, *, reads_images: bool) -> str:
    """What becomes of the rows with images, in words for the user; '' without any."""
    count = findings.num_with_images
    if not count:
        return ""
    if reads_images:
        return (
            f"{count:,} rows are about images: the teacher and its student learn to read them, "
            "with an encoder from nothing where they have none; bundles hold text models only, so "
            "there is none"
        )
    return (
        f"{count:,} rows are about images: they stay in the corpus, and no model of this recipe is "
        "trained on them or asked them, since it trains on text alone; --vision drafts models that "
        "read images"
    )


def list_images(records: Sequence[Record]) -> list[str]:
    """The images of the records, each once."""
    return list(dict.fromkeys(name for record in records for name in record.images))
