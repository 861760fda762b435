"""Types of data that was read from JSON or YAML, or will be written as JSON."""

from collections.abc import Mapping
from typing import Any

Json = Any
"""What `json.loads` returns; the reader of a value checks its type."""
JsonObject = dict[str, Json]
JsonMapping = Mapping[str, Json]
"""A JSON object that is only read."""
