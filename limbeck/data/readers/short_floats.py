"""Numbers that Arrow stores in 16 or 32 bits, as they were before: 0.9, not 0.8999999761581421."""

import numpy as np
import pyarrow
from pyarrow import types

from limbeck.contracts.json_data import Json


def holds_short_floats(kind: pyarrow.DataType) -> bool:
    """Whether values of a type are or hold such numbers."""
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return _short_type(kind) is not None or any(map(holds_short_floats, inner))


def shorten_floats(value: Json, kind: pyarrow.DataType) -> Json:
    """A value of a type with the shortest numbers that are stored alike, however deep they are."""
    if value is None:
        return None
    if short := _short_type(kind):
        return float(str(short(value)))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [shorten_floats(item, kind.value_type) for item in value]
    if types.is_struct(kind):
        return {field.name: shorten_floats(value[field.name], field.type) for field in kind}
    return value


def _short_type(kind: pyarrow.DataType) -> type[np.floating] | None:
    if types.is_float16(kind):
        return np.float16
    return np.float32 if types.is_float32(kind) else None
