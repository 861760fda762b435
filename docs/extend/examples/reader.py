"""A reader of Markdown question lists: a heading is a question, the text below it the answer."""

import re
from collections.abc import Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.records import Record
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import ReaderItem
from limbeck.data.readers.text_files import Line, TextFileReaderConfig

HEADING = re.compile(r"#+\s+(.*\S)\s*")


class Config(TextFileReaderConfig):
    """Questions and answers in a Markdown file."""

    kind: Literal["markdown_faq"] = "markdown_faq"

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        question, answer, place = "", [], 0
        for line in self.lines(self.path):
            if not isinstance(line, Line):
                yield line
                continue
            heading = HEADING.fullmatch(line.text)
            if heading is None:
                answer.append(line.text)
                continue
            yield from self._record(question, "\n".join(answer).strip(), place)
            question, answer, place = heading[1], [], line.number
        yield from self._record(question, "\n".join(answer).strip(), place)

    def _record(self, question: str, answer: str, line: int) -> Iterator[Record]:
        if question and answer:
            key = f"{self.label}-{line}"
            yield Record(key, question, answer, question, self.label, "", place=str(line))
