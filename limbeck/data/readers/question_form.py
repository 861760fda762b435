"""The form of a question: a template whose slots take the texts of a row.

Left out: which columns the texts stand in.
"""

import re
from collections.abc import Mapping

PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
"""A brace that is text, written twice as in Python's `str.format`; a slot; a brace by itself."""
TEXT_SLOT = "text"
"""The slot of the one text that a reader's setting names."""


def slot_names(form: str) -> tuple[str, ...]:
    """The slots of a form, each once, in their order.

    Raises:
        ValueError: there is none, or a brace stands by itself.
    """
    parts = list(PART.finditer(form))
    for part in parts:
        if part[0] in ("{", "}"):
            raise ValueError(
                f"{part[0]!r} at character {part.start() + 1} of {form!r} begins or ends no slot "
                f"such as {{text}}; write {2 * part[0]!r} where the brace is text"
            )
    names = tuple(dict.fromkeys(part[1] for part in parts if part[1]))
    if not names:
        raise ValueError(
            f"{form!r} has no slot, such as {{text}}: every question would be the same"
        )
    return names


def fill(form: str, texts: Mapping[str, str]) -> str:
    """The form with a text in each slot; braces in these texts are no slots."""
    return PART.sub(lambda part: texts[part[1]] if part[1] else part[0][0], form)


def check_form(form: str) -> str:
    """The form itself.

    Raises:
        ValueError: it has no slot, or a brace stands by itself.
    """
    slot_names(form)
    return form
