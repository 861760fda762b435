"""The images that a file's rows are about: where they lie, or why they cannot be used."""

from pathlib import Path

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.data.readers.row_images import IMAGE_OUTSIDE
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
    names = [name for record in findings.records for name in record.images]
    missing = [name for name in dict.fromkeys(names) if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"{findings.num_with_images} of its {len(findings.records)} rows are about images, and "
            f"{len(missing)} of these are not there, such as {missing[0]}; name their folder with "
            "--images",
            path=source["name"],
        )
    return source if names else {key: value for key, value in source.items() if key != FOLDER}


def describe_images(findings: FileFindings, *, data: str) -> str:
    """What becomes of the rows with images, in words for the user; '' without any.

    Raises:
        DataError: every row has some, so nothing is left to train on.
    """
    count = findings.num_with_images
    if not count:
        return ""
    advice = "recipes/chest-xray.yaml trains models that see"
    if count == len(findings.records):
        raise DataError(
            f"all of its {count} rows are about images, and a recipe drafted here trains on text "
            f"alone; {advice}",
            path=data,
        )
    return (
        f"{count:,} rows are about images: they stay in the corpus, and no model of this recipe is "
        f"trained on them or asked them, since it trains on text alone; {advice}"
    )
