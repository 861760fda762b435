"""Which option of `limbeck new` may help with what a reader refuses."""

import re

from limbeck.data.readers.column_names import QUESTION_NAMES
from limbeck.data.readers.row_images import IMAGE_OUTSIDE
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import PATH_SIGN, WRONG_TYPE

EXTRACT = "extract"
IS_LISTED = re.compile("'([^']+)' is (list|dict)")
"""What a reader says of a column that holds lists or objects."""


def hint_at_option(message: str, *, task: str) -> str:
    """What to add to a reader's message; '' where no option helps."""
    hints: list[str] = []
    if IMAGE_OUTSIDE.key in message:
        hints.append("--images names the folder that holds the images")
    if WRONG_TYPE.key in message and (found := IS_LISTED.search(message)):
        name, kind = found.groups()
        if name in Columns().optional_names():
            return ""
        is_question = name.partition(PATH_SIGN)[0] in ("question", "questions", *QUESTION_NAMES)
        if not is_question and task != EXTRACT:
            hints.append("--task extract reads answers that are lists or objects")
        option, part = (
            "--question" if is_question else "--answer",
            "0" if kind == "list" else "NAME",
        )
        hints.append(f"{option} {name}{PATH_SIGN}{part} reads one value of it")
    return "".join(f"; {hint}" for hint in hints)
