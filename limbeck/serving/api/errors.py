"""Errors in the form that OpenAI's clients read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from starlette.responses import Response

from limbeck.serving.api.unsupported import UNSUPPORTED

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "timeout_error",
    "server_error",
]
TYPES: Mapping[int, ErrorType] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "server_error",
}


TEXT_BRANCHES = ("str", "constrained-str")
"""How pydantic names that branch of a union of a text and something else."""
OTHER_KINDS = ("string_type", "list_type")
"""What pydantic finds in the branches of such a union that the value does not belong to."""


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def name(self) -> str:
        """What a log calls it."""
        return self.code or TYPES.get(self.status, "server_error")

    def content(self) -> dict[str, dict[str, str | None]]:
        """The body."""
        return {
            "error": {
                "message": self.message,
                "type": TYPES.get(self.status, "server_error"),
                "param": self.param or None,
                "code": self.code or None,
            }
        }

    def headers(self) -> dict[str, str]:
        """Those that belong to it."""
        found = {"Retry-After": str(max(1, round(self.retry_after)))} if self.retry_after else {}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        if self.status == 408:  # OpenAI's clients would ask, and wait, twice more
            found["X-Should-Retry"] = "false"
        return found

    def response(self) -> Response:
        """The whole answer."""
        body = json.dumps(self.content(), ensure_ascii=False).encode()
        return Response(
            body, status_code=self.status, media_type="application/json", headers=self.headers()
        )


def no_model(name: str, *, known: Iterable[str]) -> ApiError:
    """A model that is not there, and those that are."""
    message = f"no model {name!r}; there are {', '.join(known)}"
    return ApiError(404, message, code="model_not_found", param="model")


def not_utf8(error: UnicodeDecodeError) -> ApiError:
    """A body in another encoding: a console of Windows writes GBK in China, its shell UTF-16."""
    return ApiError(
        400, f"the body is not UTF-8, as JSON has to be: byte {error.start} is the first fault"
    )


def _choose_fault(faults: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first fault; of a value that may be of several kinds, what is wrong deepest inside it.

    A list of parts in which one is faulty is no text either, which would say nothing.
    """
    first = faults[0]
    places = [place for place, item in enumerate(first["loc"]) if item in TEXT_BRANCHES]
    if not places:
        return first
    outside = first["loc"][: places[0]]
    same = [fault for fault in faults if fault["loc"][: len(outside)] == outside]
    depth = len(outside) + 1
    inside = [item for item in same if len(item["loc"]) > depth or item["type"] not in OTHER_KINDS]
    if inside:
        return max(inside, key=lambda fault: len(fault["loc"]))
    kinds = [item["msg"].removeprefix("Input should be ") for item in same]
    return {**first, "msg": f"Input should be {' or '.join(kinds)}"}


def describe_faults(faults: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic found, one of it: no JSON is 400, JSON that is no request is 422, and named."""
    fault = _choose_fault(faults)
    if fault["type"] == "json_invalid":
        detail = fault.get("ctx", {}).get("error", fault["msg"])
        return ApiError(400, f"the body is not JSON: {detail}")
    place = _name_place(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"unknown key {place!r}", code="unknown_parameter", param=place)
    if fault["type"] == UNSUPPORTED:
        message = f"{place!r} {fault['msg']}"
        return ApiError(400, message, code="unsupported_parameter", param=place)
    message = fault["msg"].removeprefix("Value error, ")
    return ApiError(422, f"{place}: {message}" if place else message, param=place)


def _name_place(parts: Sequence[str | int]) -> str:
    """The keys that lead to a fault, without branches of unions between them."""
    inner = ("body", "query", *TEXT_BRANCHES)
    keys = [item for item in parts if item not in inner and "[" not in str(item)]
    # What follows a part of a content is the part's kind.
    kept = [
        str(item)
        for place, item in enumerate(keys)
        if keys[max(place - 2, 0)] != "content" or not isinstance(keys[place - 1], int)
    ]
    return ".".join(kept)


ERROR = {
    "description": "An error in OpenAI's form",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a route."""
    return dict.fromkeys(statuses, ERROR)
