import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.filters.normalization.numerals import to_number
from limbeck.data.filters.normalization.zh import clean

CASES = {
    "三天": "3天",
    "两片": "2片",
    "一日三次，每次服一片": "1日3次，每次服1片",
    "口服两三天": "口服2-3天",
    "三五天": "3-5天",
    "二十多岁": "20多岁",
    "每三十分钟一次": "每30分钟1次",
    "一百二十毫米汞柱": "120mmHg",
    "十几天": "十几天",
    "百日咳": "百日咳",
    "三叉神经痛": "三叉神经痛",
    "十二指肠溃疡": "十二指肠溃疡",
    "四肢乏力": "四肢乏力",
    "六味地黄丸": "六味地黄丸",
    "三七片": "三七片",
    "一片红肿": "一片红肿",
    "一次性手套": "一次性手套",
    "三甲医院": "三甲医院",
    "千万不要": "千万不要",
    "阿司匹林１００毫克": "阿司匹林100mg",
    "100 MG/次": "100mg/次",
    "500ＭＬ": "500ml",
    "体温３８．５摄氏度": "体温38.5℃",
    "38.5°C": "38.5℃",
    "五公斤": "5kg",
    "五千克": "5kg",
    "血糖7.8 mmol/l": "血糖7.8mmol/L",
    "10⁹/L": "10^9/L",
    "&amp;lt;b&gt;头痛<br/>发热&nbsp;": "头痛发热",
    "血压<140且>90": "血压<140且>90",
    "！！！怎么办？？？！": "怎么办？",
    "头痛★★，，发热。。。🙏": "头痛，发热。",
    "你好,请问?": "你好，请问？",
    "A,B 12:30": "A,B 12:30",
    "(CT)": "（CT）",
    "头 痛　发热\n恶心": "头痛发热恶心",
    "COVID-19 病毒": "COVID-19病毒",
    "": "",
    "★#●": "",
}
NUMBERS = {
    "-2.5 SD 及以下": "-2.5 SD及以下",
    "-20℃以下保存": "-20℃以下保存",
    "−5，是负数": "−5，是负数",
    "－3.50D": "-3.50D",
    "+1.25D": "+1.25D",
    ".5mg": ".5mg",
    "=5": "=5",
    "~5天": "~5天",
    "- 5℃": "- 5℃",
    "--5": "--5",
    "——建议": "建议",
    "- 建议复查": "建议复查",
    "➖5": "-5",
    "10⁻⁷mol": "10^-7mol",
    "10⁻⁷": "10^-7",
    "2ⁿ": "2^n",
    "5m²": "5m^2",
    "5㎡": "5m^2",
    "10<sup>-7</sup>": "10^-7",
    "10⁹5": "10^9 5",
    "Ca²⁺": "Ca^2+",
    "H₂O": "H2O",
    "log₂8": "log₂8",
    "½片": "½片",
    "1½片": "1½片",
    "①2片②3片": "①2片②3片",
    "⒈5mg": "⒈5mg",
    "1️⃣2片": "①2片",
    "5★3": "5 3",
    "1|2": "1 2",
    "5_3": "5 3",
    "价格$50": "价格$50",
    "10<br>20mg": "10 20mg",
    "5<!--x-->3": "5 3",
    "5()3": "5 3",
    "尿蛋白+++": "尿蛋白+++",
    "尿蛋白（++）": "尿蛋白（++）",
    "5''": "5''",
    "2**3": "2**3",
    "3 * 4": "3 * 4",
    "**5mg**每天": "5mg每天",
    "a == b": "a == b",
    "二○○五年": "二〇〇五年",
    "2十多年": "2十多年",
    "9三个月": "9三个月",
    "三点五毫克": "三点五mg",
    "一百五毫升": "150ml",
    "5mM": "5mM",
    "≥38℃，<90，≤5，≠3": "≥38℃，<90，≤5，≠3",
    "＜90": "<90",
    "3-5天，3～5天": "3-5天，3~5天",
    "1/2片": "1/2片",
    "120/80mmHg": "120/80mmHg",
    "1,000.50元": "1,000.50元",
    "见www.a.com,5mg": "见，5mg",
}
CODE = {
    "<think>3加4是7。</think>7": "<think>3加4是7。</think>7",
    "a<b且c>d": "a<b且c>d",
    "<b>粗</b><i class='x'>斜</i>": "粗斜",
    "<answer>7</answer>": "<answer>7</answer>",
    "用`x == -1`判断": "用`x == -1`判断",
    "代码：\n```python\nif x:  # 1\n    y = 2\n```\n结束": (
        "代码：```python\nif x:  # 1\n    y = 2\n```结束"
    ),
    "公式$x_1^2 = \\frac{1}{2}$成立": "公式$x_1^2 = \\frac{1}{2}$成立",
    "带`的字": "带的字",
}
CASES |= NUMBERS | CODE


@pytest.mark.parametrize(("raw", "expected"), CASES.items())
def test_table(raw, expected):
    assert clean(raw) == expected


@pytest.mark.parametrize("raw", CASES)
def test_cleaning_twice_changes_nothing(raw):
    assert clean(clean(raw)) == clean(raw)


def test_idempotent_on_noise():
    pieces = [
        *CASES,
        "&lt;",
        "&amp;",
        "<",
        ">",
        "…",
        "......",
        "。",
        "，",
        "(",
        ")",
        " ",
        "*",
        "~",
        "5",
        "克",
        "½",
    ]
    chooser = random.Random(0)
    for _ in range(800):
        raw = "".join(chooser.choices(pieces, k=6))
        once = clean(raw)
        assert clean(once) == once, raw


@pytest.mark.parametrize(
    ("numeral", "value"), [("十", 10), ("二十一", 21), ("一百零五", 105), ("三万", 30000)]
)
def test_to_number(numeral, value):
    assert to_number(numeral) == value


def test_marks_of_letters_stay():
    assert clean("cafe\u0301") == "caf\u00e9"
    assert clean("ｶﾞ") == "ガ"


SIGNED = st.from_regex(
    r"[-+−±~≈<>≤≥=]{0,2}[0-9]{1,4}(\.[0-9]{1,3})?([/:%℃×^-][0-9]{1,3})?", fullmatch=True
)
BETWEEN = st.sampled_from(
    [
        *"，。、；：！？,;!? \n\t★●◆※†‡@|¤•_\\#…（）()[]【】《》",
        *("头痛", "每次服", "毫克", "mg", "约", "次", "片", "😀", "<br>", "</p>", "<!-- x -->"),
        *("\u00a0", "\u3000", "&nbsp;", "**", "``", "￼", "\ue000", "\x07", "①", "½"),
    ]
)


@given(st.lists(st.tuples(SIGNED, BETWEEN), max_size=6))
def test_numbers_keep_their_digits_signs_and_points(pieces):
    """Whatever stands between them and goes: no sign is lost and no two numbers become one."""
    text = "".join(number + between for number, between in pieces)
    expected = re.findall(r"[0-9]+", unicodedata.normalize("NFC", text))
    assert re.findall(r"[0-9]+", clean(text)) == expected
    signs = [number[: len(number) - len(number.lstrip("-+−±~≈<>≤≥="))] for number, _ in pieces]
    kept = re.findall(r"[-+−±≈<>≤≥=~]*(?=[0-9])", clean(text))
    for sign in filter(None, signs):
        assert any(found.endswith(sign.replace("~~", "~")) for found in kept), (sign, kept)


@given(st.text(max_size=20))
def test_any_text_has_one_form(text):
    assert clean(clean(text)) == clean(text)
