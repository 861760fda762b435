import random

import pytest

from limbeck.data.filters.normalization.zh import clean, to_number

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
    for _ in range(2000):
        raw = "".join(chooser.choices(pieces, k=6))
        once = clean(raw)
        assert clean(once) == once, raw


@pytest.mark.parametrize(
    ("numeral", "value"), [("十", 10), ("二十一", 21), ("一百零五", 105), ("三万", 30000)]
)
def test_to_number(numeral, value):
    assert to_number(numeral) == value
