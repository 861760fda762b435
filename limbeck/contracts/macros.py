"""Names for parts of regular expressions, in the data of a pack: `<name>` stands for a part."""

import re
from collections.abc import Mapping

MACRO = re.compile(r"<([a-z_]+)>")
MAX_MACRO_DEPTH = 4


def expand(expression: str, *, macros: Mapping[str, str]) -> str:
    """An expression with its macros written out.

    Raises:
        ValueError: it names a macro that is not there, or macros name each other in a circle.
    """

    def write_out(match: re.Match[str]) -> str:
        if match[1] not in macros:
            raise ValueError(f"unknown macro <{match[1]}>; known: {', '.join(sorted(macros))}")
        return f"(?:{macros[match[1]]})"

    for _ in range(MAX_MACRO_DEPTH):
        if not MACRO.search(expression):
            return expression
        expression = MACRO.sub(write_out, expression)
    if MACRO.search(expression):
        raise ValueError(f"macros are nested more than {MAX_MACRO_DEPTH} deep: {expression!r}")
    return expression
