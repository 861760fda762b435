"""Settings of OpenAI's protocol that nothing here applies.

They would change an answer, so they are refused, but for the values that change nothing.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported"
"""The kind of such a fault, as pydantic lists it."""


def _take(*values: object, hint: str = "") -> BeforeValidator:
    """Takes these values and null."""
    shown = " or ".join(json.dumps(value) for value in values)
    instead = f"leave it out, or send {shown}" if values else "leave it out"
    message = f"is not supported by the models here; {instead}{hint}"

    def check(value: object) -> object:
        if value is not None and value not in values:
            raise PydanticCustomError(UNSUPPORTED, "{message}", {"message": message})
        return value

    return BeforeValidator(check)


Nothing = Annotated[None, _take()]
NoItems = Annotated[list[Any], Field(max_length=0), _take([])]
"""Such as tools to call."""
NoChoice = Annotated[Literal["none", "auto"], _take("none", "auto")]
"""Of tools, where there are none."""
NoPenalty = Annotated[float, Field(ge=0, le=0), _take(0)]
NoBias = dict[str, Annotated[Literal[0], _take(0)]]
NoStore = Annotated[Literal[False], _take(False)]
NoEffort = Annotated[Literal["none"], _take("none")]
TextAlone = list[Annotated[Literal["text"], _take("text")]]
OneServiceTier = Annotated[Literal["auto", "default"], _take("auto", "default")]
TextForm = Annotated[
    Literal["text"],
    _take(
        "text",
        hint="; no form is enforced: describe the wanted JSON in the prompt, and check the answer",
    ),
]
