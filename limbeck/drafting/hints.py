"""Which option of `limbeck new` may help with what a reader refuses."""

from limbeck.data.readers.row_images import IMAGE_OUTSIDE
from limbeck.data.readers.row_values import WRONG_TYPE

EXTRACT = "extract"
HINTS = {
    WRONG_TYPE.key: "--task extract reads answers that are lists or objects",
    IMAGE_OUTSIDE.key: "--images names the folder that holds the images",
}


def hint_at_option(message: str, *, task: str) -> str:
    """What to add to a reader's message; '' where no option helps."""
    hints = [
        hint
        for reason, hint in HINTS.items()
        if reason in message and not (task == EXTRACT and reason == WRONG_TYPE.key)
    ]
    return "".join(f"; {hint}" for hint in hints)
