"""Where an OpenAI-compatible server is, and the API key for it: for every caller of one.

Left out: requests and responses.
"""

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from limbeck.contracts.errors import EndpointError

SECRET_CHARS = 8
"""A shorter key, such as "none", is a placeholder and no secret: it may stand anywhere."""


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as http://localhost:8000/v1")
    _ = parts.port  # a ValueError where it is no number
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address is recorded, so it must hold no key; use key_variable")
    return url.rstrip("/").removesuffix("/chat/completions")


ServerUrl = Annotated[str, AfterValidator(_check_url)]
"""The address of a server, up to its version."""
VariableName = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")]
"""An environment variable, or a field of a request; empty: none."""


def read_key(variable: str, *, recorded: str, place: str = "") -> str:
    """The API key in an environment variable; empty where none is named.

    `recorded` is the text of the settings, which must not hold the key; `place` begins the errors.

    Raises:
        EndpointError: the variable is not set or holds no key, or the settings hold it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    where = f"{place}the environment variable {variable!r}"
    if variable and not key:
        raise EndpointError(
            f"{where}, which key_variable names, is not set or empty; export the API key in it"
        )
    if not key.isascii() or not key.isprintable():
        raise EndpointError(
            f"{where} holds no API key: it has characters that a header cannot have; export the "
            "key alone"
        )
    if len(key) >= SECRET_CHARS and key in recorded:
        raise EndpointError(
            f"{place}the API key stands in the recipe, which is recorded; take it out and leave it "
            f"in the environment variable {variable!r} alone"
        )
    return key


def hide_key(text: str, *, key: str) -> str:
    """A text of the server without the key, which it may echo."""
    return text.replace(key, "***") if len(key) >= SECRET_CHARS else text
