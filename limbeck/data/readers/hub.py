"""Data sets through the `datasets` library: from the hub, or a folder it saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import (
    Dataset,
    DatasetDict,
    Image,
    List,
    load_dataset,
    load_from_disk,
)
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note
from limbeck.data.readers.arrow_values import label_names, plain_value
from limbeck.data.readers.label_names import LABEL_NAMES
from limbeck.data.readers.row_files import OTHER_SPLITS
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_values import Row


class Config(RowReaderConfig):
    """Questions and answers in a data set of the hub."""

    kind: Literal["hub"] = "hub"
    dataset: str
    """Its name on the hub, or a folder that `save_to_disk` wrote."""
    subset: str = "default"
    split: str = "train"
    revision: str = "main"
    """Branch, tag or commit; name a commit to make a corpus again exactly."""

    @property
    @override
    def default_name(self) -> str:
        return self.dataset.rstrip("/").rsplit("/", 1)[-1]

    @override
    def external_paths(self) -> Iterator[Path]:
        """The folder, when the data set is one, and that of images."""
        yield from super().external_paths()
        if Path(self.dataset).is_dir():
            yield Path(self.dataset)

    @override
    def rows(self) -> Iterator[Row | Drop | Note]:
        found, rest = self._load()
        if rest:
            yield Note(OTHER_SPLITS, {self.label: rest})
        features = found.features.to_dict()
        assert isinstance(features, dict)
        kinds = {field.name: field.type for field in found.features.arrow_schema}
        if labels := label_names(features):
            yield Note(LABEL_NAMES, labels)
        for number, values in enumerate(found, start=1):
            try:
                plain = {
                    name: plain_value(value, kinds[name], feature=features[name])
                    for name, value in dict(values).items()
                }
            except ValueError as error:
                raise DataError(str(error), path=self.dataset) from None
            yield Row(f"{self.label}:row {number}", plain)

    def _load(self) -> tuple[Dataset, dict[str, int]]:
        """The rows, and how many the splits have that are not read."""
        rest: dict[str, int] = {}
        # `datasets` raises whatever its readers, its cache and the network raise.
        try:
            if Path(self.dataset).is_dir():
                found = load_from_disk(self.dataset)
            else:
                found = load_dataset(
                    self.dataset, self.subset, split=self.split, revision=self.revision
                )
        except Exception as error:
            message = (
                f"cannot be loaded ({type(error).__name__}): {str(error)[:300]}; check the name "
                "and the network, or name a file"
            )
            raise DataError(message, path=self.dataset) from error
        if isinstance(found, DatasetDict):
            if self.split not in found:
                known = ", ".join(map(str, found))
                raise DataError(
                    f"has no split {self.split!r}; splits: {known}; set `split`, or name the "
                    "folder of one",
                    path=self.dataset,
                )
            rest = {str(name): len(rows) for name, rows in found.items() if name != self.split}
            found = found[self.split]
        assert isinstance(found, Dataset)
        for name, info in (found.info.splits or {}).items():
            if name != self.split:
                rest.setdefault(str(name), info.num_examples)
        return _keep_files(found), rest


def _keep_files(data: Dataset) -> Dataset:
    """The rows with images as the files that they are, in place of decoded pixels."""
    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            data = data.cast_column(name, List(Image(decode=False)))
    return data
