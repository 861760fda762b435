"""Files of triples, `head-type head relation tail-type tail` a line, grouped into list answers.

Each (head, relation) becomes one fact, asked in the pack's forms. Odd entries are drops: a heading,
a cut text, a whole sentence, a fact that stands twice.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.filters.normalization.record import Normalizer
from limbeck.data.packs.fact_questions import (
    Fact,
    FactsConfig,
    choice_questions,
    draw,
    fact_records,
    recall_questions,
)
from limbeck.data.packs.schema import SPECIALTY, Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderItem
from limbeck.data.readers.text_files import Line, TextFileReaderConfig

NUM_FIELDS = 5
BROKEN_LINE = Reason("broken_line", "行损坏", "broken line")
RELATION_NOT_ASKED = Reason(
    "relation_not_asked", "未用关系", "relation not used", counts_as="surplus"
)
HEADING = Reason("heading", "标题残留", "heading")
CUT_TEXT = Reason("cut_text", "截断文本", "cut text")
EMPTY = Reason("empty", "空", "empty")
TAIL_IS_HEAD = Reason("tail_is_head", "首尾相同", "tail is head")
SENTENCE = Reason("sentence", "整句", "whole sentence")
DUPLICATE_TRIPLE = Reason("duplicate_triple", "重复三元组", "duplicate triple")
CUT = re.compile(r"(?:…|\.{2,})$")
HEADING_END = re.compile(r"[：:]$")
JOINER = re.compile(r"[、,，;；]")
BARE = re.compile(r"[\W\d_]*")


class Config(TextFileReaderConfig):
    """A folder of `*.txt` files: one of triples a relation."""

    normalizes: ClassVar[bool] = True

    kind: Literal["triples"] = "triples"
    max_items: PositiveInt = 5
    """Items of a list answer; the first ones of the file stay."""
    max_item_chars: Annotated[int, Field(ge=2)] = 24
    """A longer tail is a sentence, not an item."""
    relations: tuple[str, ...] = ()
    """The pack's relations to read; empty: every one that has a file."""
    facts: FactsConfig = FactsConfig()

    @property
    @override
    def domain_need(self) -> str:
        return "a source of triples"

    @property
    @override
    def default_name(self) -> str:
        return "triples"

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        known = {item.triples or key: key for key, item in pack.description.relations.items()}
        unknown = set(self.relations) - set(known.values())
        if unknown:
            message = f"relations {sorted(unknown)} are not the pack's: {sorted(known.values())}"
            raise DataError(message, path=self.path)
        paths = sorted(self.path.glob("*.txt")) if self.path.is_dir() else []
        if not paths:
            raise DataError("no such folder, or no *.txt file in it", path=self.path)
        tails: dict[tuple[str, str], dict[str, str]] = {}
        normalizer = Normalizer(self.normalization, source=self.label)
        num_lines = 0
        for path in paths:
            found = False
            for line in self.lines(path):
                if not isinstance(line, Line):
                    num_lines += isinstance(line, Drop)
                    yield line
                    continue
                if not line.text.strip():
                    continue
                num_lines += 1
                place = f"{path.name}:{line.number}"
                item = self._read_line(
                    line.text, place, known=known, tails=tails, clean=normalizer.clean
                )
                changes = normalizer.take_changes(place)
                yield from changes if item is None else ()
                found = found or item is None or item.reason != BROKEN_LINE
                if item is not None:
                    yield item
            if not found:
                raise DataError(
                    "holds no line of the form `head-type head relation tail-type tail`", path=path
                )
        found_facts = list(self._facts(tails, pack=pack))
        most = self.max_records // max(
            1, self.facts.forms_per_fact + self.facts.statements_per_fact
        )
        facts = draw(seed, "facts").sample(found_facts, min(most, len(found_facts)))
        yield Note("lines", num_lines)
        yield Note("facts", len(found_facts))
        yield Note("facts_asked", len(facts))
        yield from fact_records(facts, pack=pack, config=self.facts, source=self.label, seed=seed)
        asked = [fact for fact in facts if fact.specialty] or facts
        yield from recall_questions(
            asked, pack=pack, count=self.facts.recall_questions, source=self.label, seed=seed
        )
        yield from choice_questions(
            asked, pack=pack, count=self.facts.choice_questions, source=self.label, seed=seed
        )

    def _read_line(
        self,
        line: str,
        place: str,
        *,
        known: dict[str, str],
        tails: dict[tuple[str, str], dict[str, str]],
        clean: Callable[[str], str],
    ) -> Drop | None:
        """Put one line's tail among its head's; a drop when it is odd."""

        def drop(reason: Reason) -> Drop:
            return Drop(reason, self.label, place, line[:SHOWN_CHARS])

        fields = line.split(" ", NUM_FIELDS - 1)
        if len(fields) != NUM_FIELDS or not all(fields):
            return drop(BROKEN_LINE)
        head, relation, tail = clean(fields[1]).strip(), known.get(fields[2], ""), fields[4].strip()
        if not relation or (self.relations and relation not in self.relations):
            return drop(RELATION_NOT_ASKED)
        if HEADING_END.search(tail):
            return drop(HEADING)
        if CUT.search(tail):
            return drop(CUT_TEXT)
        tail = clean(tail).rstrip("。；，、")
        if not head or not tail or BARE.fullmatch(tail):
            return drop(EMPTY)
        if tail == head:
            return drop(TAIL_IS_HEAD)
        if len(tail) > self.max_item_chars or "。" in tail:
            return drop(SENTENCE)
        found = tails.setdefault((head, relation), {})
        if tail in found:
            return drop(DUPLICATE_TRIPLE)
        found[tail] = place
        return None

    def _facts(self, tails: dict[tuple[str, str], dict[str, str]], *, pack: Pack) -> Iterator[Fact]:
        specialties: dict[str, str] = {}
        for (head, relation), items in tails.items():
            if pack.description.relations[relation].attributes == (SPECIALTY,):
                keys = [key for item in items if (key := pack.find_specialty(item))]
                specialties[head] = keys[0] if keys else ""
        for (head, relation), items in tails.items():
            kept = self._split_items(items)[: self.max_items]
            place = next(iter(items.values()))
            single = pack.description.relations[relation].answer == "single"
            if single:
                # Of "medicine" and "gastroenterology", the one that the pack knows, or the longer.
                kept = [max(kept, key=lambda item: (pack.find_specialty(item) != "", len(item)))]
            yield Fact(head, relation, tuple(kept), specialties.get(head, ""), place)

    def _split_items(self, items: dict[str, str]) -> list[str]:
        found: dict[str, None] = {}
        for item in items:
            found.update(dict.fromkeys(part for part in JOINER.split(item) if part))
        return list(found)
