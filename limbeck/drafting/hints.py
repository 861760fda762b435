"""Which option of `limbeck new` may help with what a reader refuses."""

import re

from limbeck.data.readers.column_names import QUESTION_NAMES
from limbeck.data.readers.row_images import IMAGE_OUTSIDE
from limbeck.data.readers.row_values import WRONG_TYPE

EXTRACT = "extract"
IS_LISTED = re.compile("'([^']+)' is (list|dict)")
"""What a reader says of a column that holds lists or objects."""
HINTS = {
    WRONG_TYPE.key: "--task extract reads answers that are lists or objects",
    IMAGE_OUTSIDE.key: "--images names the folder that holds the images",
}


def hint_at_option(message: str, *, task: str) -> str:
    """What to add to a reader's message; '' where no option helps."""
    hints = [
        hint
        for reason, hint in HINTS.items()
        if reason in message and (reason != WRONG_TYPE.key or _are_lists(message, task=task))
    ]
    return "".join(f"; {hint}" for hint in hints)


def _are_lists(message: str, *, task: str) -> bool:
    """Whether answers are what the message calls lists, and were not read as such."""
    found = IS_LISTED.search(message)
    is_question = found is not None and found[1] in ("question", *QUESTION_NAMES)
    return found is not None and not is_question and task != EXTRACT
