"""The pairs of answers that a judge compares: two models of one report, the same questions."""

import json
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import DataError, UnknownNameError
from limbeck.contracts.records import read_jsonl
from limbeck.evaluation.answer_questions import AnsweredQuestion


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one question."""

    id: str
    task: str
    question: str
    expected: tuple[str, ...]
    cluster: str
    """Questions of one cluster are answered well or badly together."""
    answers: tuple[str, str]

    @property
    def is_same(self) -> bool:
        """Whether there is nothing to compare."""
        return self.answers[0].strip() == self.answers[1].strip()


def read_pairs(report: Path, *, models: tuple[str, str]) -> list[AnswerPair]:
    """The questions of a report that both models answered in words; chosen options are left out.

    Raises:
        UnknownNameError: the report has no such model.
        DataError: the folder is no report, or there is nothing to compare.
    """
    folder = report / "answers"
    if not folder.is_dir():
        raise DataError("no folder `answers`; name a report, as runs/my/report", path=report)
    known = sorted(path.stem for path in folder.glob("*.jsonl"))
    for name in models:
        if name not in known:
            raise UnknownNameError(name, known=known, what="model of this report")
    if models[0] == models[1]:
        raise DataError(f"{models[0]!r} is named twice; name two models of the report")
    first, second = (_read(folder / f"{name}.jsonl") for name in models)
    if first.keys() != second.keys():
        raise DataError(
            f"{models[0]!r} and {models[1]!r} answered other questions; make the report again",
            path=folder,
        )
    if not first:
        raise DataError(
            "holds no answers in words, and chosen options are not compared", path=folder
        )
    return [
        AnswerPair(
            id_,
            item.task,
            item.question,
            item.expected,
            item.cluster,
            (item.answer, second[id_].answer),
        )
        for id_, item in first.items()
    ]


def _read(path: Path) -> dict[str, AnsweredQuestion]:
    found = {}
    for line, value in enumerate(read_jsonl(path), start=1):
        try:
            item = AnsweredQuestion.from_json(value)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"no answered question ({error!r}): {json.dumps(value)[:80]}", path=path, line=line
            ) from None
        if item.form != "choice":
            found[item.id] = item
    return found
