"""Two tokenizations of one text, cut into the smallest spans that both of them have.

Positions are counted in UTF-8 bytes, so a character that byte-level tokens cut in the middle needs
no rule of its own.
"""

import itertools
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from limbeck.contracts.errors import CheckpointError
from limbeck.models.chat_tokens import end_token_id

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"
"""How a tokenizer with marked spaces writes one."""


BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}
"""The byte that each letter of a byte-level tokenizer stands for (GPT-2)."""


class Encoded(NamedTuple):
    """A text as tokens, each with the position that it ends at."""

    ids: list[int]
    ends: list[int]
    """In bytes of the text; -1 where the next token goes on within the same character."""


class Outcomes(NamedTuple):
    """What two vocabularies have in common: the number of an outcome for every token."""

    student: list[int]
    teacher: list[int]
    num: int
    shared: int
    """Outcomes that are the text of a token of both; the last two are the end, and all else."""


class TokenSpellings:
    """What the tokens of a tokenizer stand for in a text.

    Raises:
        CheckpointError: the tokenizer cannot say where in a text its tokens stand.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = as_fast(tokenizer)
        self.texts = token_texts(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Every text as tokens without special ones, and where they end in it."""
        found = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True
        ).data
        return [
            Encoded(ids, self._ends(text, ids, offsets))
            for text, ids, offsets in zip(
                texts, found["input_ids"], found["offset_mapping"], strict=True
            )
        ]

    def _ends(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
        """Byte ends; from character offsets where a normaliser changed the text."""
        pieces = [piece for token in ids if (piece := self.texts[token]) is not None]
        if len(pieces) == len(ids) and b"".join(pieces) == text.encode():
            return list(itertools.accumulate(map(len, pieces)))
        byte_at = [0]
        for character in text:
            byte_at.append(byte_at[-1] + len(character.encode()))
        ends = []
        for place, (_, end) in enumerate(offsets):
            last = place + 1 == len(offsets)
            ends.append(byte_at[end] if last or offsets[place + 1][0] >= end else -1)
        return ends


def as_fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer, if it gives the offsets of its tokens.

    Raises:
        CheckpointError: it does not.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer
    raise CheckpointError(
        f"{tokenizer.name_or_path}: the tokenizer has no tokenizer.json, so the offsets of its "
        "tokens are unknown; save it with a fast tokenizer"
    )


def token_texts(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """The bytes that each token writes, by its id; None for special tokens and unused ids."""
    backend = json.loads(as_fast(tokenizer).backend_tokenizer.to_str())
    parts = json.dumps([backend["pre_tokenizer"], backend["decoder"]], ensure_ascii=False)
    byte_level = '"ByteLevel"' in parts
    spaces = SPACE in parts
    prefix = backend["model"].get("continuing_subword_prefix") or ""
    added = {item["id"]: item for item in backend["added_tokens"]}
    vocab = tokenizer.get_vocab()
    texts: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, index in vocab.items():
        byte = BYTE_TOKEN.fullmatch(token) if backend["model"].get("byte_fallback") else None
        if byte is not None:
            texts[index] = bytes([int(byte[1], 16)])
        elif index in added:
            texts[index] = None if added[index]["special"] else token.encode()
        elif byte_level:
            texts[index] = bytes(BYTE_OF[letter] for letter in token if letter in BYTE_OF)
        else:
            piece = token.replace(SPACE, " ") if spaces else token
            texts[index] = piece.removeprefix(prefix).encode()
    return texts


def align(student: Sequence[int], teacher: Sequence[int]) -> tuple[list[int], list[int]]:
    """The number of the smallest common span that each token lies in, for both sides.

    Given are the ends of the tokens. Spans are counted in reading order from 0; what follows the
    last common end is -1: one side was cut there, or the texts differ.
    """
    common = sorted({*student} & {*teacher} - {-1})
    number = {end: place for place, end in enumerate(common)}

    def spans(ends: Sequence[int]) -> list[int]:
        found, current = [-1] * len(ends), -1
        for place in range(len(ends) - 1, -1, -1):
            # Of tokens that end together the last one closes the span.
            current = number.get(ends[place], current)
            found[place] = current
        return found

    return spans(student), spans(teacher)


def share_outcomes(student: TokenSpellings, teacher: TokenSpellings) -> Outcomes:
    """Outcomes of a next token that mean the same on both sides.

    A token counts as the longest text it begins with that both vocabularies have as a token, so
    that a word of one side and its first character of the other are one outcome. The ends of an
    answer are one outcome, and all tokens that begin with no shared text another.
    """
    shared = {text for text in student.texts if text} & {text for text in teacher.texts if text}
    number = {text: place for place, text in enumerate(sorted(shared))}
    end, rest = len(number), len(number) + 1

    def outcomes(side: TokenSpellings) -> list[int]:
        found = []
        for text in side.texts:
            lengths = range(len(text or b""), 0, -1)
            starts = (number[text[:num]] for num in lengths if text and text[:num] in number)
            found.append(next(starts, rest))
        found[end_token_id(side.tokenizer)] = end
        return found

    return Outcomes(outcomes(student), outcomes(teacher), len(number) + 2, len(number))
