"""Rows that somebody judged to be bad examples: they are never learnt as good ones.

KTO marks each answer as desirable or not (Ethayarajh et al. 2024, arXiv:2402.01306); the annotation
tool Prodigy keeps its user's decision in a column `answer`. Left out: pairs of a better and a worse
answer.
"""

from collections.abc import Collection

from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.records import Reason
from limbeck.data.readers.row_values import RowError

UNPAIRED = Reason("unpaired_preference", "未成对的偏好", "preference without its pair")
NOT_ACCEPTED = Reason("not_accepted", "标注未通过", "not accepted", counts_as="surplus")
DESIRABLE = ("label", "kto_tag")
"""What TRL and LLaMA-Factory call the mark of KTO; its value is a truth value, or its text."""
DECISION = "answer"
ACCEPT = "accept"
DECISIONS = (ACCEPT, "reject", "ignore")
DECIDED = ("_view_id", "_input_hash", "_task_hash")
"""Stand beside each decision, and in no file that was not annotated."""


def is_mark(value: object) -> bool:
    """Whether a value of such a column is KTO's mark: a truth value, or its text."""
    return str(value).lower() in ("true", "false")


def check_desirable(values: JsonMapping, *, beside: Collection[str]) -> None:
    """Refuse an answer that a mark beside the columns that are read calls undesirable.

    Raises:
        RowError: it does.
    """
    for name in DESIRABLE:
        mark = values.get(name)
        if name not in beside and is_mark(mark) and str(mark).lower() == "false":
            good = "True" if isinstance(mark, bool) else "true"
            detail = (
                f"{name!r} is false: a worse answer; `where: {{{name}: {good!r}}}` reads the others"
            )
            raise RowError(UNPAIRED, detail)


def check_accepted(values: JsonMapping) -> None:
    """Refuse a row that an annotator did not accept.

    Raises:
        RowError: the annotator did not.
    """
    if _is_decided(values) and values[DECISION] != ACCEPT:
        raise RowError(NOT_ACCEPTED, f"{DECISION!r} is {values[DECISION]!r}")


def without_decision(values: JsonMapping) -> JsonMapping:
    """The row without its annotator's decision, which is no answer."""
    if not _is_decided(values):
        return values
    return {name: value for name, value in values.items() if name != DECISION}


def _is_decided(values: JsonMapping) -> bool:
    return values.get(DECISION) in DECISIONS and any(name in values for name in DECIDED)
