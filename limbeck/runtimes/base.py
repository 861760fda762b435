"""What a runtime is: it writes a checkpoint as a bundle, and reads the bundle to answer with it."""

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Float

from limbeck.contracts.answerer import Answerer, Size
from limbeck.contracts.fields import Precision
from limbeck.contracts.parity import Tolerance
from limbeck.models.known import computes_as_made
from limbeck.models.session import Session
from limbeck.quantization.formats.base import Format, QuantizedFormat, list_formats
from limbeck.runtimes.bundle import Bundle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.runtimes.architecture import Architecture


class LoadedModel(abc.ABC):
    """A model without its tokenizer: tokens in, logits out."""

    max_tokens: int
    """Longest sequence that the model reads."""

    @abc.abstractmethod
    def open_session(self, *, num_slots: int, max_prefix_bytes: int = 0) -> Session[np.ndarray]:
        """A session for decoding so many rows at once.

        It may keep so many bytes of keys and values of earlier rows, for prompts that begin alike.
        Their logits then agree to the rounding only; what has to be repeatable keeps none.
        """

    @abc.abstractmethod
    def compute_logits(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Logits at every position of each row from `start` on, without a cache."""

    @abc.abstractmethod
    def size(self) -> Size:
        """Counts and bytes of the loaded model."""

    @abc.abstractmethod
    def num_threads(self) -> int:
        """CPU threads in use."""


class ArchitectureCheck(Protocol):
    """A further check of what a runtime can compute and hold."""

    def __call__(
        self, architecture: "Architecture", *, number_format: str, weights: str, place: str | Path
    ) -> None:
        """Accept an architecture.

        Raises:
            CheckpointError: the runtime cannot compute or hold it.
        """


class TokenizerCheck(Protocol):
    """A further check of the tokenizers that a runtime can carry."""

    def __call__(self, tokenizer: "PreTrainedTokenizerBase", *, place: str | Path) -> None:
        """Accept a tokenizer that has a `tokenizer.json`.

        Raises:
            CheckpointError: the runtime has no such kind.
        """


class FormatCheck(Protocol):
    """A further check of how a checkpoint's codes lie."""

    def __call__(
        self,
        number_format: QuantizedFormat | None,
        *,
        architecture: "Architecture",
        place: str | Path,
    ) -> None:
        """Accept a number format, None for floats, of a model of this architecture.

        Raises:
            CheckpointError: the runtime cannot hold its blocks.
        """


class Runtime(abc.ABC):
    """A way to run models.

    What writing needs and answering does not (torch, transformers, a graph library) is imported
    inside `write`, because a device that only answers does not have it.
    """

    name: ClassVar[str]
    """Its key in the table of runtimes, by which a bundle names it."""
    architectures: ClassVar[frozenset[str] | Literal["any"]]
    """Values of `model_type` that it computes."""

    weights: ClassVar[Mapping[str, Tolerance | Literal["format"]]] = {"format": "format"}
    """How it can store matrices of floats, and how far a bundle may then differ from its
    checkpoint; `format` is as the checkpoint's number format says."""
    rounded_architectures: ClassVar[Mapping[str, Tolerance]] = {}
    """Those that it computes with less than float32 whatever the weights, and how far a bundle of
    floats may then differ from its checkpoint."""
    check_architecture: ClassVar[ArchitectureCheck | None] = None
    """Refuses of the architectures what it does not compute, where that is less than all."""
    check_format: ClassVar[FormatCheck | None] = None
    """Refuses of the formats that it computes with what it cannot hold."""
    check_tokenizer: ClassVar[TokenizerCheck | None] = None
    """Refuses of the tokenizers with a `tokenizer.json` those that it cannot carry."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What it needs beyond the extra `train`; the extra that installs them has its name."""

    def computing_in(self, precision: Precision, *, place: str | Path) -> "Runtime":
        """The same runtime, computing in fewer bits.

        Raises:
            CheckpointError: the model computes as it was made.
        """
        raise computes_as_made(place, precision)

    @property
    def formats(self) -> frozenset[str]:
        """Those of the table of number formats whose weights it computes with."""
        return frozenset(name for name, item in list_formats().items() if self.supports(item))

    @abc.abstractmethod
    def supports(self, number_format: Format) -> bool:
        """Whether it computes with weights of a format; wider floats are exported as float32."""

    @abc.abstractmethod
    def write(self, checkpoint: Path, folder: Path, *, weights: str = "format") -> Bundle:
        """Writes a checkpoint's bundle into a folder; the content of its `bundle.json`.

        `weights` is a name of its table of the same name.

        Raises:
            CheckpointError: the checkpoint is damaged, or is not of the runtime's architectures
                and formats.
            ParityError: the tokenizer's files alone do not render as transformers does.
        """

    @abc.abstractmethod
    def open_model(self, folder: Path, *, num_threads: int) -> LoadedModel:
        """The model in a bundle's folder, without its tokenizer.

        Raises:
            CheckpointError: a file is missing or damaged.
        """

    @abc.abstractmethod
    def read(self, folder: Path, *, num_threads: int) -> Answerer:
        """The bundle in a folder, ready to answer.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
