"""Redaction: generated cases, clinical values that stay, texts of the medical pack."""

import json
import re
from collections import Counter

import pytest

from limbeck import packs
from limbeck.serving.privacy import redact
from limbeck.serving.privacy.clean import clean
from limbeck.serving.privacy.numbers import is_identity_number, is_luhn
from limbeck.serving.privacy.redact import FINDERS
from tests.serving.privacy.generated import make_cases

PLACEHOLDER = "|".join(re.escape(finder.placeholder) for finder in FINDERS.values())


def leaves_nothing(case):
    """Whether the value, and only the value, gave way to placeholders."""
    text = redact(case.text).text
    if not (text.startswith(case.before) and text.endswith(case.after)):
        return False
    middle = text[len(case.before) : len(text) - len(case.after)]
    return bool(re.fullmatch(rf"(?:(?:{PLACEHOLDER})[\s,，\-]*)+", middle))


def test_nearly_all_generated_values_are_found():
    cases = list(make_cases(seed=11, num_each=60))
    missed = Counter(case.kind for case in cases if not leaves_nothing(case))
    assert missed.total() <= 0.005 * len(cases)
    assert max(missed.values(), default=0) <= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我叫张伟，张伟今年45岁", "我叫[姓名]，[姓名]今年45岁"),
        ("患者王小明，男", "患者[姓名]，男"),
        ("手机１３８ ００１３ ８０００", "手机[手机号]"),
        ("手机一三八零零一三八零零零", "手机[手机号]"),
        ("手机138\u200b0013\u200b8000", "手机[手机号]"),
        ("身份证11010519491231002x", "身份证[身份证号]"),
        ("老身份证110105491231002", "老身份证[身份证号]"),
        ("卡号6222 0202 0000 1234 567", "卡号[银行卡号]"),
        ("住在北京市朝阳区建国路88号3号楼2单元501室", "住在[地址]"),
        ("病历号：A0012345，血压120/80", "病历号：[病历号]，血压120/80"),
        ("出生日期：1980-01-02", "出生日期：[出生日期]"),
        ("车牌京A12345", "车牌[车牌号]"),
        ("My name is john smith, call (415) 555-2671", "My name is [姓名], call [电话]"),
        ("SSN 123-45-6789", "SSN [身份证号]"),
        ("passport: 123456789", "passport: [护照号]"),
        ("ping 2001:db8::8a2e:370:7334", "ping [IP地址]"),
    ],
)
def test_values_give_way(text, expected):
    assert redact(text).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "血压120/80，体温38.5，心率72",
        "2024年3月5日至2024-03-20住院",
        "白细胞 12.5×10^9/L，血小板 250，血红蛋白 130 g/L",
        "阿司匹林100mg，每日1次",
        "空腹血糖7.0 mmol/L，糖化6.5%",
        "我今年65岁，身高170cm，体重68.5kg",
        "BP 140/90, HR 88, SpO2 97%",
        "LDL 3.4, HDL 1.2, TG 1.7, glucose 110 mg/dL",
        "2023-11-02 08:30 查CT，2023-12-15复查",
        "WBC 5.6 12 130 250 4.5",
        "术后第3天，引流量150ml",
        "胎心140次/分，孕32周+4天",
        "肌酐 88 umol/L eGFR 90",
        "12:30:45 服药",
        "病程10年，2型糖尿病，患者高血压",
        "took 500 mg twice a day for 10 days since 2024-01-15",
        "版本1.2.3",
        "肺结节8x6mm，TI-RADS 3类",
        "CA125 35 U/ml CA199 27",
        "患者出现胸痛，患者方便时复查",
        "医生说没事，主任医生看过",
        "孩子高烧39度，宝宝黄疸15.6",
        "血压 130 85 120 80 72",
        "PSA 4.0 ng/ml 2020 2021 2022 2023",
        "心电图PR 160 QT 400 QRS 90 ms",
        "走路3层楼就喘",
        "每天 1000 2000 3000 步",
        "第1 2 3 4 5 6 7 8 9 10 11次",
        "ICD E11.9 I10 J45.901",
        "rs1801133 CYP2C19*2",
        "Dr says it is fine",
        "我姓什么不重要",
    ],
)
def test_clinical_values_stay(text):
    assert redact(text).text == text


def test_counts_hold_no_value():
    found = redact("我叫张伟，手机13800138000，另一个13900139000")
    assert found.counts == {"name": 1, "mobile": 2}


def test_few_texts_of_the_medical_pack_are_touched():
    """What docs/serving/privacy.md states: 1 of 1,118 texts in which nobody is named."""
    folder = packs.folder("medical")
    texts = [
        line
        for path in sorted((folder / "consult").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    for name in ("free", "triage"):
        lines = (folder / "evaluation" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        texts += [json.loads(line)["question"] for line in lines]
    assert len(texts) > 1000
    assert sum(bool(redact(text).counts) for text in texts) <= 1


def test_a_redacted_text_holds_nothing_to_redact():
    for case in make_cases(seed=12, num_each=5):
        text = redact(case.text).text
        assert redact(text).text == text


def test_checksums():
    assert is_identity_number("11010519491231002X")
    assert not is_identity_number("110105194912310021")
    assert is_luhn("4111111111111111")
    assert not is_luhn("4111111111111112")


@pytest.mark.parametrize("unit", ["1 ", "路1号", "a@", "我叫张三", "12 oak ", "-", "a1:"])
def test_a_long_input_ends(unit):
    redact((unit * 20_000)[:20_000])


def test_what_lets_a_finder_be_skipped_skips_nothing_that_it_finds():
    texts = [case.text for case in make_cases(seed=5, num_each=20)]
    texts += ["微信 ſome_name", "邮箱 a(at)b.com", "IP fe80::abcd:ef", "IP ::ffff:a:b"]
    for text in texts:
        cleaned = clean(text).text
        for finder in FINDERS.values():
            assert finder.needs.search(cleaned) or not list(finder.find(cleaned))
