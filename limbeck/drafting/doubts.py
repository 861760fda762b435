"""What a user must know of a file before its recipe is written: what refuses or stops it."""

import re
from pathlib import Path

from limbeck.contracts.errors import DataError
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.drafting.findings import FileFindings

FEW_RECORDS = 100
"""Below, the held-out records are so few that no interval tells two models apart."""
LEAST_RECORDS = 10
COMMA = re.compile(r"(?<![\d.,])\d+,\d{1,2}(?![\d.,])")
LEAST_COMMA_RATIO = 0.05
"""Share of the answers with such numbers from which a comma may be their decimal mark."""


def check_findings(findings: FileFindings, *, path: Path | str) -> None:
    """Refuses records that could not show whether a model has learnt anything.

    Raises:
        DataError: they are too few, or all have one answer or one question.
    """
    count = len(findings.records)
    if count < LEAST_RECORDS:
        raise DataError(
            f"holds {count} usable records, too few to learn from and to be asked; "
            f"{LEAST_RECORDS} are the least that a recipe is written for",
            path=path,
        )
    if findings.num_texts == count:
        raise DataError(
            "is plain text: no row has a question for the report to ask; name the columns with "
            "--question and --answer, or write a recipe with `select: all, loss_on: all` "
            "(docs/training.md)",
            path=path,
        )
    answers = {record.answer for record in findings.records}
    if len(answers) == 1:
        raise DataError(
            f"every answer is {answers.pop()[:40]!r}, so there is nothing to learn; name the "
            "column of answers with --answer",
            path=path,
        )
    if len({record.group for record in findings.records}) == 1:
        raise DataError(
            f"every question is {findings.records[0].question[:40]!r}: none can be held out for "
            "the report; name the column of questions with --question",
            path=path,
        )


def find_doubts(
    findings: FileFindings, source: RowReaderConfig, *, recipe: Path, language: str
) -> list[str]:
    """What will stop the run or make its scores say little, each with what to do."""
    doubts = []
    num_dropped = findings.num_read - len(findings.records)
    ratio = num_dropped / findings.num_read
    if ratio > source.max_dropped_ratio:
        doubts.append(
            f"the run will stop: {num_dropped:,} of {findings.num_read:,} rows ({ratio:.1%}) "
            f"cannot be used, and {source.max_dropped_ratio:.0%} may be; mend the file, or set "
            f"`max_dropped_ratio` above {ratio:.2g} on the source in {recipe.name}"
        )
    if len(findings.records) < FEW_RECORDS:
        doubts.append(
            f"{len(findings.records)} records are few to learn from, and where the report asks one "
            "in ten of them, its intervals will be wide"
        )
    with_comma = [found[0] for item in findings.sample if (found := COMMA.search(item.answer))]
    if not language and len(with_comma) > LEAST_COMMA_RATIO * len(findings.sample):
        doubts.append(
            f"answers hold numbers such as {with_comma[0]}; where a comma is the decimal mark, "
            "name the language (--language de), or scores read 1.500 as one and a half"
        )
    return doubts
