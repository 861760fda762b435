"""A text without what identifies a person, before anything of it is stored or logged."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from limbeck.serving.privacy import numbers, words
from limbeck.serving.privacy.clean import clean
from limbeck.serving.privacy.numbers import Span

FINDERS: Mapping[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    "email": ("[邮箱]", words.find_emails),
    "identity_number": ("[身份证号]", numbers.find_identity_numbers),
    "bank_card": ("[银行卡号]", numbers.find_bank_cards),
    "mobile": ("[手机号]", numbers.find_mobiles),
    "record_number": ("[病历号]", numbers.find_record_numbers),
    "passport": ("[护照号]", numbers.find_passports),
    "permit": ("[通行证号]", numbers.find_permits),
    "account": ("[社交账号]", words.find_accounts),
    "telephone": ("[电话]", numbers.find_telephones),
    "ip_address": ("[IP地址]", numbers.find_ip_addresses),
    "plate": ("[车牌号]", numbers.find_plates),
    "birth_date": ("[出生日期]", words.find_birth_dates),
    "address": ("[地址]", words.find_addresses),
    "name": ("[姓名]", words.find_names),
}
"""By kind: what stands in a value's place, and what finds it. Where two overlap, the first wins."""


@dataclass(frozen=True)
class Redacted:
    """A text with placeholders, and how many of each kind; never the values."""

    text: str
    counts: Mapping[str, int]


def redact(text: str) -> Redacted:
    """A text in which each value that identifies a person is a placeholder of its kind."""
    cleaned = clean(text)
    taken = bytearray(len(cleaned.text))
    found: list[tuple[int, int, str]] = []
    for kind, (_, find) in FINDERS.items():
        for start, end in find(cleaned.text):
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
        pieces += [text[last:begin], FINDERS[kind][0]]
        last = stop
    counts = Counter(kind for _, _, kind in found)
    return Redacted("".join([*pieces, text[last:]]), dict(counts))
