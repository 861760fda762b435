"""A text without what identifies a person, before anything of it is stored or logged."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from limbeck.serving.privacy import numbers, words
from limbeck.serving.privacy.clean import clean
from limbeck.serving.privacy.numbers import Span

DIGIT = re.compile(r"\d")
DIGIT_OR_COLON = re.compile(r"[\d:]")
AT = re.compile(r"@|[(\[]at[)\]]")
LATIN = re.compile(r"[a-z0-9_]", re.IGNORECASE)
ANY = re.compile(r"")


@dataclass(frozen=True)
class Finder:
    """How values of one kind are found."""

    placeholder: str
    """What stands in a value's place."""
    find: Callable[[str], Iterator[Span]]
    needs: re.Pattern[str]
    """Without it a text holds no such value: most texts are done with after one look."""


FINDERS: Mapping[str, Finder] = {
    "email": Finder("[邮箱]", words.find_emails, needs=AT),
    "identity_number": Finder("[身份证号]", numbers.find_identity_numbers, needs=DIGIT),
    "bank_card": Finder("[银行卡号]", numbers.find_bank_cards, needs=DIGIT),
    "mobile": Finder("[手机号]", numbers.find_mobiles, needs=DIGIT),
    "record_number": Finder("[病历号]", numbers.find_record_numbers, needs=DIGIT),
    "passport": Finder("[护照号]", numbers.find_passports, needs=DIGIT),
    "permit": Finder("[通行证号]", numbers.find_permits, needs=DIGIT),
    "account": Finder("[社交账号]", words.find_accounts, needs=LATIN),
    "telephone": Finder("[电话]", numbers.find_telephones, needs=DIGIT),
    "ip_address": Finder("[IP地址]", numbers.find_ip_addresses, needs=DIGIT_OR_COLON),
    "plate": Finder("[车牌号]", numbers.find_plates, needs=DIGIT),
    "birth_date": Finder("[出生日期]", words.find_birth_dates, needs=DIGIT),
    "address": Finder("[地址]", words.find_addresses, needs=ANY),
    "name": Finder("[姓名]", words.find_names, needs=ANY),
}
"""By kind; where two overlap, the first wins."""


@dataclass(frozen=True)
class Redacted:
    """A text with placeholders, and how many of each kind; never the values."""

    text: str
    counts: Mapping[str, int]


def redact(text: str) -> Redacted:
    """A text in which each value that identifies a person is a placeholder of its kind."""
    if not text:
        return Redacted("", {})
    cleaned = clean(text)
    taken = bytearray(len(cleaned.text))
    found: list[tuple[int, int, str]] = []
    for kind, finder in FINDERS.items():
        if not finder.needs.search(cleaned.text):
            continue
        for start, end in finder.find(cleaned.text):
            # What another kind has taken is cut off; the rest is still redacted.
            while start < end and taken[start]:
                start += 1
            while start < end and taken[end - 1]:
                end -= 1
            if start < end and not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                found.append((start, end, kind))
    found.sort()
    pieces, last = [], 0
    for start, end, kind in found:
        begin, stop = cleaned.original_span(start, end)
        pieces += [text[last:begin], FINDERS[kind].placeholder]
        last = stop
    counts = Counter(kind for _, _, kind in found)
    return Redacted("".join([*pieces, text[last:]]), dict(counts))
