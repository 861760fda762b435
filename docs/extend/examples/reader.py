"""A reader of Markdown question lists: a heading is a question, the text below it the answer."""

import re
from collections.abc import Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.records import Record
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import FileReaderConfig, Item, read_lines

HEADING = re.compile(r"#+\s+(.*\S)\s*")


class Config(FileReaderConfig):
    """Questions and answers in a Markdown file."""

    kind: Literal["markdown_faq"] = "markdown_faq"

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[Item]:
        question, answer, place = "", [], 0
        _, lines = read_lines(self.path)
        for number, line in lines:
            heading = HEADING.fullmatch(line)
            if heading is None:
                answer.append(line)
                continue
            yield from self._record(question, "\n".join(answer).strip(), place)
            question, answer, place = heading[1], [], number
        yield from self._record(question, "\n".join(answer).strip(), place)

    def _record(self, question: str, answer: str, line: int) -> Iterator[Record]:
        if question and answer:
            key = f"{self.label}-{line}"
            yield Record(key, question, answer, question, self.label, "", place=str(line))
