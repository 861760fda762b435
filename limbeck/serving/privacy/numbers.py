"""Numbers that identify a person: identity numbers, cards, telephones, documents, addresses of IP.

Each finder yields the spans of one kind in a clean text. Shapes are narrow and checksums are
checked, so that clinical figures (120/80, 38.5, 7.0 mmol/L, dates, doses) stay.
"""

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]
ID_18 = re.compile(r"(?<![\dA-Za-z])[1-8](?:[ \-]{0,2}\d){16}[ \-]{0,2}[\dXx](?![\dA-Za-z])")
ID_15 = re.compile(r"(?<![\dA-Za-z.])[1-8]\d{14}(?![\dA-Za-z])")
ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
REGIONS = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
"""The first two digits of an identity number."""
CARD = re.compile(
    r"(?<![\dA-Za-z.])(?:[2-9]\d{12,18}|[2-9]\d{3}([ \-])\d{4}(?:\1\d{4}){1,3}(?:\1?\d{1,3})?"
    r"|[2-9](?:[ \-]\d){12,18}|3\d{3}[ \-]\d{6}[ \-]\d{5})(?![\dA-Za-z])"
)
MOBILE = re.compile(
    r"(?<![\d.])(?:(?:\+|00)?86[ \-]{0,2}|\((?:\+|00)?86\) ?)?"
    r"(?:1[3-9]\d{9}|1[3-9]\d([ \-.])\d{4}\1\d{4}|1[3-9]\d[ \-.]\d{8}|1[3-9]\d{5}[ \-.]\d{4}"
    r"|1[3-9]\d\d[ \-.]\d{4}[ \-.]\d{3}|1[3-9]\d{3}[ \-.]\d{6}|1[3-9]\d[ \-.]\d{3}[ \-.]\d{5}"
    r"|1 [3-9](?: \d){9}|1-[3-9](?:-\d){9})(?!\d)"
)
LANDLINE = re.compile(
    r"(?<![\d.])(?:(?:\+|00)86[ \-]?)?(?:\(0\d{2,3}\) ?|0\d{2,3}[ \-])[2-9]\d{2,3}[ \-]?\d{4}(?!\d)"
    r"(?:(?: ?转| ?ext\.? ?|-)\d{1,6})?|(?<![\d.])0(?:10|2\d|[3-9]\d\d)[2-9]\d{6,7}(?!\d)"
    r"|(?<![\d.])[48]00[ \-]?\d{3}[ \-]?\d{4}(?!\d)"
)
FOREIGN_PHONE = re.compile(
    r"(?<![\d.])(?:\+?1[ \-.]?)?(?:\(\d{3}\) ?|\d{3}[\-.])\d{3}[\-. ]\d{4}(?!\d)(?:x\d{1,6})?"
    r"|(?<![\d.])(?:\+|00)[1-9]\d{0,2}(?:[ \-.()]{1,2}\d{1,5}){2,5}(?!\d)"
    r"|(?<![\d.])\+[1-9]\d{8,13}(?!\d)(?:x\d{1,6})?"
)
CUED_PHONE = re.compile(
    r"(?:手机号?码?|电话号?码?|联系方式|联系电话|座机|传真|手机|电话|致电|拨打我"
    r"|phone(?: number)?|mobile"
    r"|\btel|\bcell|\bfax|call me (?:at|on)|reach me (?:at|on)|whatsapp)[ :是为#.\-]{0,4}"
    r"(?:is |at )?(\+?\(?\d(?:[ \-.()]{0,2}\d){6,14}(?:x\d{1,6})?)",
    re.IGNORECASE,
)
SSN = re.compile(r"(?<![\d\-])(?!000|666)\d{3}-\d{2}-\d{4}(?![\d\-])")
PASSPORT = re.compile(
    r"(?<![A-Za-z0-9])(?:[EeGg]\d{8}|[Ee][A-HJ-NP-Za-hj-np-z]\d{7}|[DdSsPpHh][EeDdOoPp]?\d{7,8})"
    r"(?![A-Za-z0-9])"
)
CUED_PASSPORT = re.compile(
    r"(?:护照号?码?|passport(?: number| no\.?)?)[ :是为#]{0,4}(?:is )?([A-Za-z]{0,2}\d{6,9})"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PERMIT = re.compile(
    r"(?<![A-Za-z0-9])(?:[CWHMTLcwhmtl]\d{8}(?:\d{2})?|[CWcw][A-Za-z]\d{7}|[A-Z]{3}\d{12}"
    r"|[A-Z]{1,2}\d{6}\([\dA]\)|[A-Z][12]\d{8})(?![A-Za-z0-9])"
)
CUED_PERMIT = re.compile(
    r"(?:通行证|回乡证|台胞证|台湾居民\w{0,10}证|居住证|居留证|军官证|士兵证|警官证|驾驶证"
    r"|港澳\w{0,8}证|permit"
    r"|driver'?s? licen[cs]e)号?码?(?: number| no\.?)?[ :是为#]{0,4}(?:is )?"
    r"([\u4e00-\u9fff]?字?第?[A-Za-z]{0,3}\d{5,18}号?)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][ ·\-]?"
    r"(?=[A-Z0-9]{0,5}\d)[A-HJ-NP-Z0-9]{5,6}(?![A-Za-z0-9])"
)
RECORD = re.compile(
    r"(?:病历号?码?|病案号?|住院号|门诊号|就诊卡?号?|诊疗卡号?|登记号|检查号|标本号|条码号?"
    r"|医保卡?号?码?"
    r"|社保卡?号?码?|医疗卡号?|档案号|报告单?编?号|住院编号|患者编?号|患者ID|病人ID|\bMRN\b"
    r"|medical record"
    r"|\bpatient (?:id|number|no)\b|chart (?:number|no)|case (?:number|no)|insurance (?:id"
    r"|number|no)"
    r"|policy (?:number|no)|health card|member id|NHS(?: number)?)(?: ?(?:number|no|id)\b)?"
    r"[ :#.是为]{0,4}(?:is )?([A-Za-z]{0,4}[ \-]?\d[\dA-Za-z\-]{2,24}(?: \d{3,4}){0,3})",
    re.IGNORECASE,
)
CUED_ID = re.compile(
    r"(?:身份证(?:件)?号?码?|证件号码?|公民身份号码|(?:社会保障|社会保险)号码?"
    r"|social security(?: number)?"
    r"|\bssn\b|national id(?: number)?)[ :#是为]{0,4}(?:is )?(\d(?:[ \-]{0,2}[\dXx]){7,19})",
    re.IGNORECASE,
)
CUED_CARD = re.compile(
    r"(?:银行卡号?|卡号|信用卡号?|储蓄卡号?|借记卡号?|银行账[号户]|工资卡|card number|card no\.?"
    r"|account (?:number|no\.?)"
    r"|\biban\b)[ :#是为]{0,4}(?:is )?((?:[A-Z]{2})?\d(?:[ \-]{0,2}\d){9,24})",
    re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
IPV6 = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])")


def is_luhn(digits: str) -> bool:
    """Whether the last digit checks the others, by Luhn's formula (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_identity_number(number: str) -> bool:
    """Whether 18 characters check by GB 11643-1999, MOD 11-2."""
    if not re.fullmatch(r"\d{17}[\dXx]", number, re.ASCII):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], ID_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def is_date(digits: str) -> bool:
    """Whether eight digits, or six of the last century, are a year, a month and a day."""
    year, month, day = digits[:-4], int(digits[-4:-2]), int(digits[-2:])
    in_range = len(year) == 2 or 1880 <= int(year) <= 2100
    return in_range and 1 <= month <= 12 and 1 <= day <= 31


def find_identity_numbers(text: str) -> Iterator[Span]:
    """Chinese identity numbers of 18 and 15 digits, and those that a cue names.

    A number with a region and a date of birth is one even where its checksum fails: a slip of the
    pen in it identifies its owner all the same.
    """
    for match in ID_18.finditer(text):
        number = re.sub(r"[ \-]", "", match[0])
        spaces = len(match[0]) - len(number)
        plausible = number[:2] in REGIONS and is_date(number[6:14])
        if is_identity_number(number) or (plausible and spaces <= 5) or (plausible and spaces > 15):
            yield match.span()
    for match in ID_15.finditer(text):
        if match[0][:2] in REGIONS and is_date(match[0][6:12]):
            yield match.span()
    yield from (match.span() for match in SSN.finditer(text))
    yield from (match.span(1) for match in CUED_ID.finditer(text))


def find_bank_cards(text: str) -> Iterator[Span]:
    """Card numbers whose checksum holds, and those that a cue names."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if 13 <= len(digits) <= 19 and is_luhn(digits):
            yield match.span()
    yield from (match.span(1) for match in CUED_CARD.finditer(text))


def find_mobiles(text: str) -> Iterator[Span]:
    """Chinese mobile numbers, joined or in groups, with or without the country's code."""
    return (match.span() for match in MOBILE.finditer(text))


def find_telephones(text: str) -> Iterator[Span]:
    """Landlines, service numbers, foreign numbers, and whatever a cue names."""
    for pattern in (LANDLINE, FOREIGN_PHONE):
        yield from (match.span() for match in pattern.finditer(text))
    yield from (match.span(1) for match in CUED_PHONE.finditer(text))


def find_passports(text: str) -> Iterator[Span]:
    """Chinese passports by their shape, others after a cue."""
    yield from (match.span() for match in PASSPORT.finditer(text))
    yield from (match.span(1) for match in CUED_PASSPORT.finditer(text))


def find_permits(text: str) -> Iterator[Span]:
    """Permits of Hong Kong, Macao and Taiwan by their shape, others after a cue."""
    yield from (match.span() for match in PERMIT.finditer(text))
    yield from (match.span(1) for match in CUED_PERMIT.finditer(text))


def find_plates(text: str) -> Iterator[Span]:
    """Number plates of Chinese cars."""
    return (match.span() for match in PLATE.finditer(text))


def find_record_numbers(text: str) -> Iterator[Span]:
    """Numbers of medical records, cards and insurances after their cues."""
    return (match.span(1) for match in RECORD.finditer(text))


def find_ip_addresses(text: str) -> Iterator[Span]:
    """Addresses of IP, version 4 and 6."""
    for pattern in (IPV4, IPV6):
        for match in pattern.finditer(text):
            try:
                ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if match[0] != "::":
                yield match.span()
