"""Data sets through the `datasets` library: from the hub, or a folder it saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import (
    ClassLabel,
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
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_values import Row
from limbeck.data.readers.short_floats import holds_short_floats, shorten_floats


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
        found = self._load()
        short = {
            field.name: field.type
            for field in found.features.arrow_schema
            if holds_short_floats(field.type)
        }
        labels = {
            name: feature
            for name, feature in found.features.items()
            if isinstance(feature, ClassLabel)
        }
        for number, values in enumerate(found, start=1):
            values = dict(values)
            for name, feature in labels.items():
                # -1 stands for a label that is not known.
                known = values[name] is not None and values[name] >= 0
                values[name] = feature.int2str(values[name]) if known else None
            for name, kind in short.items():
                values[name] = shorten_floats(values[name], kind)
            yield Row(f"{self.label}:row {number}", values)

    def _load(self) -> Dataset:
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
                raise DataError(f"no split {self.split!r}; splits: {known}", path=self.dataset)
            found = found[self.split]
        assert isinstance(found, Dataset)
        return _keep_files(found)


def _keep_files(data: Dataset) -> Dataset:
    """The rows with images as the files that they are, in place of decoded pixels."""
    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            data = data.cast_column(name, List(Image(decode=False)))
    return data
