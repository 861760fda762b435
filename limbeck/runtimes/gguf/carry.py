"""Whether llama.cpp cuts text as the tokenizer does, on many texts; which of its names fits.

How llama.cpp's byte-level BPE finds words stands in its source under a name, and a file says only
the name. Names are tried in turn, in llama.cpp itself: what a published tokenizer is called says
less than what it does.
"""

import json
import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from limbeck.contracts.errors import CheckpointError
from limbeck.models.tokenizer_identity import PROBES
from limbeck.runtimes.gguf.model import GgufFile
from limbeck.runtimes.gguf.vocabulary import SPACE, GgufVocabulary, TokenType

PRE_TOKENIZERS = (
    *("smollm", "gpt-2", "llama-bpe", "qwen2", "smaug-bpe", "deepseek-v3", "gpt-4o", "tekken"),
    *("chatglm-bpe", "qwen35", "falcon", "deepseek-llm", "deepseek-coder", "command-r", "bloom"),
    *("viking", "seed-coder", "bailingmoe", "minicpm5", "youtu", "kimi-k2", "exaone-moe"),
    *("superbpe", "tiny_aya", "jais-2", "chameleon", "afmoe", "default"),
)
"""llama.cpp's names, one of each behaviour, the commonest first."""
SIGNS = (("{1,3}", "llama-bpe"), ("(?i:", "qwen2"), ('"Digits"', "smollm"), ("", "gpt-2"))
"""What stands in an expression, and the commonest name of those with it."""
NUM_RANDOM = 400
SEED = 0
LONGEST_RANDOM = 12
MORE_PROBES = (
    "1 12 123 1234 12345 123456789 1,234.56 2026-11-29 3x4 v1.2.3 10% $5",
    "I'm you're HE'S they'LL we'd It'S 'quoted' ''two'' rock'n'roll",
    "a.b,c;d:e!f?g (h) [i] {j} <k> /l\\ m|n ~o~ `p` ^q^ @r #s & t*u+v-w=x_y",
    "line\nline\n\nline\n\n\n  line\r\n\r\n\tline \n end",
    "   three spaces, trailing   ",
    "症状：头晕、心悸；血压180/110mmHg。用药（每日3次）！",
    "HelloWorld helloWorld HELLO world123 123world über-Größe ÉCOLE",
    "for (int i = 0; i < 10; ++i) { x[i] += '\\n'; }  # comment",
    "🙂🙃 👨‍👩‍👧‍👦 ❤️ ⚕ 🇨🇳🇫🇷 ☎️ ①②③",
)
INGREDIENTS = (
    *("a", "The", " the", " and", "HELLO", "Größe", "naïve", "don't", "'S", "'ll", "x1", "mmHg"),
    *("高血压", "药", "。", "，", "：", "（", "）", "、", "一日3次", "ｍｇ", "カタカナ", "한국어"),
    *("Привет", "שלום", "مرحبا", "नमस्ते", "ไทย", "🙂", "👩‍⚕️", "½", "²", "Ⅳ", "℃", "μ", "\u00b5"),
    *("0", "7", "12", "345", "6789", "3.14", "1,000", "%", "$", "#", "_", "-", "--", "...", "/"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u3000", "\u00a0", "\u200d", "\u0301"),
    *("(", ")", "[", "]", "{", "}", "<", ">", '"', "'", "`", "|", "\\", "=", "+", "*", "!", "?"),
)


@dataclass(frozen=True)
class Mismatch:
    """The first text that llama.cpp cuts otherwise."""

    num_equal: int
    text: str
    expected: list[int]
    found: list[int]

    def __str__(self) -> str:
        first = next(
            i
            for i in range(max(len(self.expected), len(self.found)))
            if self.expected[i : i + 1] != self.found[i : i + 1]
        )
        return (
            f"{self.text[:60]!r} is {self.expected[first : first + 5]} from token {first} on, in "
            f"llama.cpp {self.found[first : first + 5]}"
        )


WriteFile = Callable[[GgufVocabulary, Path], None]
"""Writes a file with a vocabulary and no tensors."""


def carry(
    vocabulary: GgufVocabulary, *, tokenizer: Tokenizer, write: WriteFile, place: str
) -> "Carried":
    """The vocabulary under the name by which llama.cpp cuts text as the tokenizer does.

    Raises:
        CheckpointError: under none, with the first text that differs.
    """
    texts = make_texts(vocabulary, tokenizer=tokenizer)
    nearest: Mismatch | None = None
    names = list_names(tokenizer) if vocabulary.model == "gpt2" else ("",)
    for name in names:
        candidate = vocabulary.with_pre_tokenizer(name)
        try:
            with _opened(candidate, write=write) as file:
                found = compare_texts(tokenizer, file, texts=texts)
                if found is None:
                    _check_ends(candidate, file, place=place)
                    return Carried(candidate, len(texts))
        except CheckpointError as error:
            if "unknown pre-tokenizer" not in str(error):
                raise
            continue
        if nearest is None or found.num_equal > nearest.num_equal:
            nearest = found
    raise CheckpointError(
        f"{place}: its tokenizer cannot be carried into a GGUF file exactly: {nearest}"
        + (f" (the nearest of {len(names)} ways to find words)" if len(names) > 1 else "")
        + "; export for another runtime"
    )


def list_names(tokenizer: Tokenizer) -> Sequence[str]:
    """The names to try, those first whose expression resembles the tokenizer's.

    Where a small vocabulary cannot tell two apart, the likelier one is taken.
    """
    stated = json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"])
    first = next((name for sign, name in SIGNS if sign in stated), PRE_TOKENIZERS[0])
    return (first, *(name for name in PRE_TOKENIZERS if name != first))


@dataclass(frozen=True)
class Carried:
    """A vocabulary that llama.cpp was held against."""

    vocabulary: GgufVocabulary
    num_texts: int


@contextmanager
def _opened(vocabulary: GgufVocabulary, *, write: WriteFile) -> Iterator[GgufFile]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        write(vocabulary, path)
        yield GgufFile(path, vocab_only=True)


def _check_ends(vocabulary: GgufVocabulary, file: GgufFile, *, place: str) -> None:
    ends = [
        vocabulary.special[name] for name in ("eos", "eot", "eom") if name in vocabulary.special
    ]
    if missing := [index for index in ends if not file.ends_answers(index)]:
        raise CheckpointError(f"{place}: llama.cpp would not end an answer at tokens {missing}")


def compare_texts(tokenizer: Tokenizer, file: GgufFile, *, texts: Sequence[str]) -> Mismatch | None:
    """The first text that both cut otherwise: special tokens as such, as text, and put around."""
    for number, text in enumerate(texts):
        for expected, found in (
            (
                tokenizer.encode(text, add_special_tokens=False).ids,
                file.encode(text, parses_special=True),
            ),
            (encode_plain(tokenizer, text), file.encode(text, parses_special=False)),
            (
                tokenizer.encode(text, add_special_tokens=True).ids,
                file.encode(text, parses_special=True, adds_special=True),
            ),
        ):
            if expected != found:
                return Mismatch(number, text, expected, found)
    return None


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text in which special tokens are text."""
    tokenizer.encode_special_tokens = True
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = False


def make_texts(
    vocabulary: GgufVocabulary, *, tokenizer: Tokenizer, num: int = NUM_RANDOM
) -> list[str]:
    """Texts on which tokenizers differ, the same each time.

    Those that llama.cpp is known to read otherwise are left out: what the tokenizer composes first
    (NFC), and for "llama" the character that stands for a space.
    """
    rng = random.Random(SEED)
    texts = [*PROBES, *MORE_PROBES]
    special = [
        token
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    texts += [f"{token}a {token} b{token}\n" for token in special[:32]]
    for _ in range(num):
        parts = rng.choices(INGREDIENTS, k=rng.randint(1, LONGEST_RANDOM))
        if special and rng.random() < 0.2:
            parts.insert(rng.randrange(len(parts)), rng.choice(special))
        texts.append("".join(parts))
        ids = rng.choices(range(tokenizer.get_vocab_size()), k=rng.randint(1, LONGEST_RANDOM))
        texts.append(tokenizer.decode(ids, skip_special_tokens=True))
    if vocabulary.normal_form:
        texts = [unicodedata.normalize(vocabulary.normal_form, text) for text in texts]
    if vocabulary.model == "llama":
        texts = [text for text in texts if SPACE not in text]
    return [text for text in texts if text]
