"""Whether two tokenizers are the same: by what they do, never by the bytes of their files.

Saving a published tokenizer again rewrites its files and changes none of its tokens.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from limbeck.models.chat_tokens import control_tokens

PROBES = (
    "What are the symptoms of asthma (3 of them)?\n\n1. Wheezing; 2. coughing...",
    "高血压（BP ≥ 140/90 mmHg）怎么办？　每次2.5mg，一日3次。",
    "  two  spaces\tand a tab\r\n    indented: def f(x): return x ** 2 != 1e-7\n",
    "ÀÉÎõü ß Straße naïve e\u0301 \u1e69 ﬁ ﬀ ½ Ⅳ ① ２．５ｍｇ µg μg Ω K Å",
    "Здравствуйте, как дела? Γειά σου Κόσμε. שלום עולם مرحبا بالعالم",
    "こんにちは、世界。カタカナ ｶﾀｶﾅ 안녕하세요 세계 नमस्ते दुनिया สวัสดีชาวโลก Tiếng Việt",
    "👩‍⚕️🩺 🇨🇳 x²+y²=z² ∑∫√∞ −40 ℃ 10⁻⁷ <b>html</b> https://example.org/a?b=c&d=1#e",
    "don't DON'T I'll we've 1234567890 3.14159 1,000,000 00 0x1F CamelCase snake_case",
    "\u200bzero\u200dwidth\ufeff \u00a0nbsp\u3000 \x00\x07 \U00020bb7 \ue000",
    "",
    " ",
    "\n",
)
"""Scripts, widths, accents, numbers, code and spaces, on which rules of tokenizers differ."""


@dataclass(frozen=True)
class TokenizerIdentity:
    """What a tokenizer does, as far as it decides which tokens a text becomes."""

    tokens: Mapping[str, int]
    special: frozenset[str]
    merges: tuple[str, ...]
    probes: tuple[tuple[int, ...], ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256; equal for equal tokenizers."""
        value = [sorted(self.tokens.items()), sorted(self.special), self.merges, self.probes]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()

    def find_difference(self, other: "TokenizerIdentity") -> str:
        """What first tells two tokenizers apart; '' where nothing does."""
        for token, index in sorted(self.tokens.items(), key=lambda item: item[1]):
            if other.tokens.get(token) != index:
                theirs = other.tokens.get(token, "unknown")
                return f"token {token!r} is {index} here and {theirs} there"
        if more := sorted(set(other.tokens) - set(self.tokens)):
            return f"{len(more)} tokens such as {more[0]!r} are there and not here"
        if special := sorted(self.special ^ other.special):
            return f"{special[0]!r} is a special token in one of them alone"
        if self.merges != other.merges:
            return "their merges differ"
        for text, ours, theirs in zip(PROBES, self.probes, other.probes, strict=True):
            if ours != theirs:
                return f"{text[:40]!r} is {ours[:8]}... here and {theirs[:8]}... there"
        return ""


def identify(tokenizer: PreTrainedTokenizerBase) -> TokenizerIdentity:
    """What a tokenizer does."""
    merges: list[str | list[str]] = []
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
    return TokenizerIdentity(
        tokens=tokenizer.get_vocab(),
        special=frozenset(control_tokens(tokenizer)),
        merges=tuple(item if isinstance(item, str) else " ".join(item) for item in merges),
        probes=tuple(tuple(tokenizer.encode(text, add_special_tokens=False)) for text in PROBES),
    )
