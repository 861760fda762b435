"""A tokenizer as llama.cpp stores it: byte-level BPE, or characters with bytes for the rest.

llama.cpp has two tokenizers that these become. "gpt2" merges the bytes of words; how it finds words
has a name of llama.cpp's own. "llama" merges the characters of the whole text by the scores of what
they become, and spells unknown characters in bytes. Left out: whether both do the same, which
`carry` holds against llama.cpp itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from limbeck.contracts.errors import CheckpointError

if TYPE_CHECKING:
    from gguf import GGUFWriter

SPACE = "\u2581"
"""What llama.cpp's "llama" reads instead of a space."""
SPACE_BYTE = "<0x20>"
NEVER_MERGED = -1e9
UNSUPPORTED = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GgufVocabulary:
    """What a GGUF file says of its tokenizer."""

    model: Literal["gpt2", "llama"]
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    """Of "gpt2"."""
    scores: tuple[float, ...]
    """Of "llama"."""
    special: Mapping[str, int]
    """Token ids by what they are for: bos, eos, eot, eom, unk, pad."""
    adds_bos: bool
    adds_eos: bool
    template: str
    normal_form: Literal["", "NFC"]
    """What the tokenizer makes of a text first, and llama.cpp does not."""
    pre_tokenizer: str = ""
    """llama.cpp's name of how "gpt2" finds words."""

    def with_pre_tokenizer(self, name: str) -> "GgufVocabulary":
        """The same with words found as the name says."""
        return replace(self, pre_tokenizer=name)

    def write(self, writer: "GGUFWriter") -> None:
        """Add it to the header of a file."""
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == "gpt2":
            writer.add_tokenizer_pre(self.pre_tokenizer)
            writer.add_token_merges(self.merges)
        else:
            writer.add_tokenizer_pre("default")
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(False)
        names = {"unk": "unknown", "pad": "padding"}
        for name, index in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{names.get(name, name)}_token_id", index)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        writer.add_chat_template(self.template)


def describe_vocabulary(
    tokenizer: PreTrainedTokenizerBase, *, num_rows: int, end_ids: Sequence[int], place: str
) -> GgufVocabulary:
    """A tokenizer as a file of so many embeddings stores it, its words' name still open.

    Raises:
        CheckpointError: llama.cpp has no such tokenizer.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"{place}: {type(tokenizer).__name__} is no tokenizer of the library `tokenizers`; "
            "save it as tokenizer.json first"
        )
    backend = tokenizer.backend_tokenizer
    content = json.loads(backend.to_str())
    kind = _check_kind(content, place=place)
    tokens, types = _list_tokens(content, num_rows=num_rows, place=place)
    pairs = [_pair(item) for item in content["model"]["merges"]]
    scores: tuple[float, ...] = ()
    if kind == "llama":
        scores = _score(tokens, pairs)
        tokens = _write_spaces(tokens, place=place)
        types = [
            TokenType.NORMAL if token == SPACE and found == TokenType.BYTE else found
            for token, found in zip(tokens, types, strict=True)
        ]
    template = tokenizer.get_chat_template()
    assert isinstance(template, str)
    if tokenizer.bos_token_id is None and "bos_token" in template:
        # llama.cpp would take a token of its own choice, since a file cannot say that none is.
        template = "{% set bos_token = '' %}" + template
    adds_bos, adds_eos = _find_added(backend, tokenizer, place=place)
    return GgufVocabulary(
        model=kind,
        tokens=tuple(tokens),
        types=tuple(types),
        merges=tuple(" ".join(pair) for pair in pairs) if kind == "gpt2" else (),
        scores=scores,
        special=_find_special(tokenizer, end_ids=end_ids),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        template=template,
        normal_form="NFC" if _normalizes(content["normalizer"]) else "",
    )


def _check_kind(content: Mapping[str, Any], *, place: str) -> Literal["gpt2", "llama"]:
    model = content["model"]
    used = [name for name in UNSUPPORTED if model.get(name)]
    if model["type"] != "BPE" or used:
        found = model["type"] if model["type"] != "BPE" else f"BPE with {used[0]}"
        raise CheckpointError(
            f"{place}: a tokenizer of kind {found} cannot be carried into a GGUF file; BPE over "
            "bytes, or over characters with bytes for the rest, can"
        )
    if "ByteLevel" in json.dumps(content["pre_tokenizer"]):
        return "gpt2"
    if not model.get("byte_fallback"):
        raise CheckpointError(
            f"{place}: its tokenizer has no tokens for bytes, so that llama.cpp could not read "
            "every text; train one with bytes"
        )
    return "llama"


def _normalizes(normalizer: Mapping[str, Any] | None) -> bool:
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    return [step["type"] for step in steps] == ["NFC"]


def _list_tokens(
    content: Mapping[str, Any], *, num_rows: int, place: str
) -> tuple[list[str], list[TokenType]]:
    """Token and type of each embedding; rows that no token has get a name that no text makes."""
    by_index = {index: token for token, index in content["model"]["vocab"].items()}
    added = {item["id"]: item for item in content["added_tokens"]}
    by_index |= {index: item["content"] for index, item in added.items()}
    if (highest := max(by_index)) >= num_rows:
        raise CheckpointError(
            f"{place}: the tokenizer has a token {highest}, the model {num_rows} embeddings"
        )
    falls_back = content["model"].get("byte_fallback")
    types = []
    for index in range(num_rows):
        token = by_index.get(index)
        if token is None:
            types.append(TokenType.UNUSED)
        elif index in added:
            special = added[index]["special"]
            types.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        elif falls_back and len(token) == len(SPACE_BYTE) and token.startswith("<0x"):
            types.append(TokenType.BYTE)
        else:
            types.append(TokenType.NORMAL)
    return [by_index.get(index, f"[PAD{index}]") for index in range(num_rows)], types


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _score(tokens: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """Earlier merges score higher, because llama.cpp merges what scores highest."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return tuple(-float(ranks[token]) if token in ranks else NEVER_MERGED for token in tokens)


def _write_spaces(tokens: Sequence[str], *, place: str) -> list[str]:
    """Tokens as llama.cpp spells spaces; where only the byte of one is a token, that is it."""
    if SPACE not in tokens and " " not in tokens:
        tokens = [" " if token == SPACE_BYTE else token for token in tokens]
    if any(SPACE in token for token in tokens) and any(" " in token for token in tokens):
        raise CheckpointError(
            f"{place}: its tokenizer has tokens for a space and for {SPACE!r}, which llama.cpp "
            "reads as a space"
        )
    return [token.replace(" ", SPACE) for token in tokens]


def _find_special(
    tokenizer: PreTrainedTokenizerBase, *, end_ids: Sequence[int]
) -> Mapping[str, int]:
    found = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    others = [index for index in end_ids if index != tokenizer.eos_token_id]
    found |= dict(zip(("eot", "eom"), others, strict=False))
    return {name: index for name, index in found.items() if isinstance(index, int)}


def _find_added(
    backend: Tokenizer, tokenizer: PreTrainedTokenizerBase, *, place: str
) -> tuple[bool, bool]:
    """Whether a begin and an end are put around a text."""
    plain, whole = (
        backend.encode("a", add_special_tokens=is_whole).ids for is_whole in (False, True)
    )
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    before, after = whole[:start], whole[start + len(plain) :]
    if before not in ([], [tokenizer.bos_token_id]) or after not in ([], [tokenizer.eos_token_id]):
        raise CheckpointError(
            f"{place}: its tokenizer puts the tokens {before} and {after} around a text; "
            "llama.cpp can put one that begins and one that ends it"
        )
    return bool(before), bool(after)
