"""Ways to break a file: as bytes, as lines of JSON, as JSON, as YAML, as tensors."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    0.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "x",
    "高血压",
    "\ud800",
    "\0",
    [],
    ["x"],
    {},
    {"x": 1},
    [[]],
)
"""What stands where something else was expected."""


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def empty(rng: random.Random, data: bytes) -> bytes:
    return b""


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def insert_zeros(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + bytes(rng.choice((1, 50))) + data[place:]


def replace_by_noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice((1, 40, 3000)))


def repeat(rng: random.Random, data: bytes) -> bytes:
    return data + data[rng.randrange(len(data) + 1) :]


BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    cut,
    empty,
    flip,
    insert_zeros,
    replace_by_noise,
    repeat,
)


def change_encoding(rng: random.Random, data: bytes) -> bytes:
    text = data.decode(errors="ignore")
    encoding = rng.choice(("gb18030", "utf-16", "utf-8-sig", "big5", "latin-1", "utf-32", "utf-7"))
    return text.encode(encoding, errors="replace")


def change_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        broken = (b"{", b"[]", b"null", b"7", b'"', b"{}" * 9, b"[" * 90000, b'{"a":' * 90000)
        lines.insert(place, rng.choice(broken))
    elif kind == 2:
        lines[place] = cut(rng, lines[place])
    elif kind == 3:
        rng.shuffle(lines)
    else:
        return rng.choice((b"\r", b"\r\n", b"\x85", "\u2028".encode())).join(lines)
    return b"\n".join(lines)


def change_characters(rng: random.Random, data: bytes) -> bytes:
    text = list(data.decode(errors="replace"))
    for _ in range(rng.choice((1, 2, 8)) if text else 0):
        place = rng.randrange(len(text))
        text[place] = rng.choice(["", *"\"',:;{}[]&*!|>%@`#-0x\t\n\\{。\ufeff\x07", "高" * 99])
    return "".join(text).encode()


TEXT = (*BYTES, change_encoding, change_lines, change_characters)


def places(value: Any, keys: tuple = ()) -> list[tuple]:
    """The paths to everything inside a JSON value."""
    found = [keys] if keys else []
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        found += places(item, (*keys, key))
    return found


def change_value(rng: random.Random, value: Any) -> Any:
    """The JSON value with one thing in it replaced, removed, renamed or added."""
    keys = rng.choice(places(value) or [()])
    if not keys:
        return rng.choice(ODD_VALUES)
    parent = value
    for key in keys[:-1]:
        parent = parent[key]
    kind = rng.randrange(4)
    if kind == 0:
        del parent[keys[-1]]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(("x", "kind", "问题", ""))] = parent.pop(keys[-1])
    elif kind == 2 and isinstance(parent, dict):
        parent["unexpected"] = rng.choice(ODD_VALUES)
    else:
        parent[keys[-1]] = rng.choice(ODD_VALUES)
    return value


def change_json(rng: random.Random, data: bytes) -> bytes:
    return json.dumps(change_value(rng, json.loads(data))).encode()


def change_json_lines(rng: random.Random, data: bytes) -> bytes:
    values = [json.loads(line) for line in data.splitlines()]
    for place in rng.sample(range(len(values)), min(len(values), rng.choice((1, 1, 5, 10**6)))):
        values[place] = change_value(rng, values[place])
    return "\n".join(map(json.dumps, values)).encode()


def change_tensors(rng: random.Random, path: Path) -> None:
    """Rewrite a safetensors file with another name, shape, type or value somewhere."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name)
    kind = rng.randrange(6)
    if kind == 1:
        tensors[name + ".more"] = tensor
    elif kind == 2:
        tensors[name] = np.ascontiguousarray(tensor[: len(tensor) // 2])
    elif kind == 3:
        tensors[name] = np.ascontiguousarray(tensor[..., None])
    elif kind == 4:
        tensors[name] = tensor.astype(rng.choice((np.int64, np.uint8, np.float64)))
    elif kind == 5:
        tensors[name] = np.full_like(tensor, rng.choice((0, 1, 100)))
    save_file(tensors, path, metadata={"format": "pt"})


def break_file(rng: random.Random, path: Path) -> None:
    """Damage one file in whichever way fits its kind, or remove it."""
    data = path.read_bytes()
    ways: list[Callable[[random.Random, bytes], bytes]] = list(BYTES)
    if path.suffix == ".json":
        ways = [*TEXT, *[change_json] * 8]
    elif path.suffix == ".jsonl":
        ways = [*TEXT, *[change_json_lines] * 6]
    elif path.suffix in (".jinja", ".yaml", ".csv", ".txt"):
        ways = list(TEXT)
    choice = rng.randrange(12)
    if choice == 0:
        path.unlink()
    elif choice == 1:
        path.unlink()
        path.mkdir()
    elif path.suffix == ".safetensors" and choice < 8:
        change_tensors(rng, path)
    else:
        path.write_bytes(rng.choice(ways)(rng, data))
