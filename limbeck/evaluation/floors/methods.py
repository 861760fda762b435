"""How each floor answers the questions of one task; `FLOORS` of the registry lists them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, final

from typing_extensions import override

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import FLOORS
from limbeck.evaluation.floors.named_entities import EntityIndex
from limbeck.evaluation.floors.pixels import answer_by_pixels
from limbeck.evaluation.floors.text_pool import TextPool
from limbeck.evaluation.tasks import Response

Missing = Literal[
    "no training record of this kind",
    "the question is an image",
    "several images in one question",
    "too many different answers",
    "one answer only",
]
"""Why a floor has no answers to the questions of a task."""
MAX_LINEAR_ANSWERS = 200


class FloorMethod(ABC):
    """How one floor answers the questions of a task, from training records that could teach it."""

    title_zh: ClassVar[str]
    title_en: ClassVar[str]
    """In reports."""
    needs_names: ClassVar[bool] = False
    """Whether it is left out where no training question has a marked name."""

    @abstractmethod
    def answer_texts(self, pool: TextPool, *, entities: EntityIndex) -> list[Response] | Missing:
        """The answers to questions in words, or why there are none; the pool has records."""

    @abstractmethod
    def answer_images(self, pool: TextPool, *, folder: Path) -> list[Response] | Missing:
        """The same for questions about images, which are files in the folder."""


@final
class Majority(FloorMethod):
    """The most frequent answer; of a choice, the option most often given as an answer."""

    title_zh: ClassVar[str] = "多数"
    title_en: ClassVar[str] = "majority"

    @override
    def answer_texts(self, pool: TextPool, *, entities: EntityIndex) -> list[Response] | Missing:
        return _respond(pool.majority())

    @override
    def answer_images(self, pool: TextPool, *, folder: Path) -> list[Response] | Missing:
        return _respond(pool.majority())


@final
class Lookup(FloorMethod):
    """The answer of the record whose question is most similar."""

    title_zh: ClassVar[str] = "查找"
    title_en: ClassVar[str] = "lookup"

    @override
    def answer_texts(self, pool: TextPool, *, entities: EntityIndex) -> list[Response] | Missing:
        return _respond(pool.lookup())

    @override
    def answer_images(self, pool: TextPool, *, folder: Path) -> list[Response] | Missing:
        return "the question is an image"


@final
class EntityLookup(FloorMethod):
    """The same among records about the same names, where the corpus marks names."""

    title_zh: ClassVar[str] = "实体查找"
    title_en: ClassVar[str] = "entity lookup"
    needs_names: ClassVar[bool] = True

    @override
    def answer_texts(self, pool: TextPool, *, entities: EntityIndex) -> list[Response] | Missing:
        return _respond(pool.copy_answers(entities.similarities(pool)))

    @override
    def answer_images(self, pool: TextPool, *, folder: Path) -> list[Response] | Missing:
        return "the question is an image"


@final
class Linear(FloorMethod):
    """A linear classifier where answers are few: of character n-grams, or of pixels."""

    title_zh: ClassVar[str] = "线性"
    title_en: ClassVar[str] = "linear"

    @override
    def answer_texts(self, pool: TextPool, *, entities: EntityIndex) -> list[Response] | Missing:
        return _refuse_linear(pool) or _respond(pool.linear())

    @override
    def answer_images(self, pool: TextPool, *, folder: Path) -> list[Response] | Missing:
        records = [pool.index.records[place] for place in pool.places]
        if any(len(item.images) != 1 for item in (*records, *pool.questions)):
            return "several images in one question"
        return _refuse_linear(pool) or answer_by_pixels(pool, folder=folder)


def find_method(name: str) -> FloorMethod:
    """The method that the table names.

    Raises:
        UnknownNameError: there is none of this name.
    """
    method: type[FloorMethod] = resolve(FLOORS, name, what="floor")
    return method()


def _refuse_linear(pool: TextPool) -> Missing | None:
    """Why no classifier can be made; None where one can."""
    if len(pool.counts) == 1:
        return "one answer only"
    return "too many different answers" if len(pool.counts) > MAX_LINEAR_ANSWERS else None


def _respond(texts: Iterable[str]) -> list[Response]:
    return [Response(text, 1.0) for text in texts]
