"""Texts with a value that identifies a person, and where it stands: values by Faker, wording ours.

Same seed, same cases.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from faker import Faker

from limbeck.serving.privacy.numbers import is_luhn


@dataclass(frozen=True)
class Case:
    kind: str
    before: str
    value: str
    after: str

    @property
    def text(self):
        return self.before + self.value + self.after


WORDING = {
    "name_zh": [
        "我叫{}，最近胃疼",
        "姓名：{}，性别：男",
        "患者{}，女，56岁，血压130/85",
        "你好，我是{}，想问一下检查结果",
        "我妈妈{}今年七十了",
        "{}先生昨天来复诊",
        "联系人：{}",
        "姓名:{} 年龄:45",
        "{}医生让我复查",
        "我儿子{}，8岁，发烧38.5",
    ],
    "name_en": [
        "My name is {}, and my knee hurts",
        "Patient name: {}\nBP 120/80",
        "Mr. {} has a cough",
        "I saw Dr. {} last week",
        "Hi, I'm {}. My chest hurts",
        "my son {} has a fever of 38.5",
        "Patient {}, 45, on metformin 500 mg",
    ],
    "mobile": [
        "手机{}",
        "我的电话是{}，请回电",
        "打{}找我",
        "有事{}联系",
        "tel: {} thanks",
        "血压120/80，电话{}。",
        "call {} please",
    ],
    "landline": ["家里电话{}", "座机：{}，白天有人", "请拨{}", "单位{}"],
    "phone_en": ["Call me at {}.", "my phone number is {}", "phone: {}"],
    "identity": [
        "身份证{}",
        "身份证号：{}，帮我查一下",
        "我的证件号码是{}。",
        "{}是我的号",
        "ID {} thanks",
    ],
    "card": ["卡号{}", "银行卡{}，退费", "从{}扣款", "my card number is {}"],
    "passport": ["护照{}", "护照号：{}", "passport {}", "持{}入境"],
    "permit": ["港澳通行证{}", "回乡证号：{}", "通行证号码{}", "台胞证{}"],
    "email": ["邮箱{}", "发到{}吧", "email me at {} please"],
    "record": [
        "病历号：{}",
        "住院号{}，出院小结",
        "门诊号是{}",
        "MRN: {}",
        "medical record number {}",
        "医保卡号{}",
    ],
    "account": [
        "微信{}",
        "加我微信：{}",
        "QQ：{}",
        "微信号是{}",
        "wechat: {}",
        "my telegram is {}",
    ],
    "ip": ["我的IP是{}", "from {} today", "IP：{}，登录不了"],
    "address_zh": ["我住在{}", "地址：{}", "家住{}，附近有医院吗", "请寄到{}，谢谢"],
    "address_en": ["I live at {}", "Address: {}", "my home address is {}"],
}
ESTATES = ["阳光花园", "幸福小区", "龙湖家园", "金茂公寓", "锦绣苑", "东方新村", "翠湖小区"]
STREETS = [
    "建国路",
    "中山北路",
    "人民东路",
    "解放大道",
    "学院路",
    "延安西路",
    "长江路",
    "文化街",
    "南京西路",
    "五一大道",
    "青年路",
]
CITIES = [
    "北京市朝阳区",
    "上海市浦东新区",
    "广东省深圳市南山区",
    "四川省成都市武侯区",
    "江苏省苏州市工业园区",
    "杭州市西湖区",
    "武汉市洪山区",
    "河南省郑州市金水区",
    "",
]


def make_cases(*, seed: int, num_each: int) -> Iterator[Case]:
    """So many cases of each kind, wording and value drawn."""
    rng = random.Random(seed)
    faker = {code: Faker(code) for code in ("zh_CN", "en_US", "en_GB")}
    for number, one in enumerate(faker.values()):
        one.seed_instance(seed + number)
    for kind, forms in WORDING.items():
        for _ in range(num_each):
            before, after = rng.choice(forms).split("{}")
            yield Case(kind, before, make_value(kind, rng=rng, faker=faker), after)


def make_value(kind: str, *, rng: random.Random, faker: dict[str, Faker]) -> str:
    chinese, american = faker["zh_CN"], faker["en_US"]
    digits = lambda count: "".join(rng.choices("0123456789", k=count))  # noqa: E731
    if kind == "name_zh":
        return chinese.name()
    if kind == "name_en":
        return f"{american.first_name()} {american.last_name()}"
    if kind == "mobile":
        return write_digits(chinese.phone_number(), groups=(3, 4, 4), rng=rng)
    if kind == "landline":
        area = rng.choice(["010", "021", "0755", "0571", "028"])
        return area + rng.choice(["-", " "]) + rng.choice("2345678") + digits(7)
    if kind == "phone_en":
        return american.numerify(rng.choice(["(415) 555-####", "212-555-####", "+1 646 555 ####"]))
    if kind == "identity":
        return write_digits(chinese.ssn(), groups=(6, 8, 4), rng=rng)
    if kind == "card":
        return write_digits(card(rng), groups=(4, 4, 4, 4, 3), rng=rng)
    if kind == "passport":
        return rng.choice(
            ["E" + digits(8), "G" + digits(8), "EA" + digits(7), "EH" + digits(7), "D" + digits(8)]
        )
    if kind == "permit":
        return rng.choice(
            ["C" + digits(8), "W" + digits(8), "H" + digits(8), "M" + digits(10), "CA" + digits(7)]
        )
    if kind == "email":
        return rng.choice([chinese, american]).email()
    if kind == "record":
        return rng.choice(["", "A", "ZY", "MZ-", "P"]) + digits(rng.randint(6, 12))
    if kind == "account":
        letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 8)))
        return rng.choice(
            [letters + digits(4), digits(9), f"wxid_{letters}", f"{letters}-{digits(2)}"]
        )
    if kind == "ip":
        return rng.choice([american.ipv4(), american.ipv4(), american.ipv6()])
    if kind == "address_zh":
        return address(rng, chinese)
    return (
        american.street_address()
        + ", "
        + american.city()
        + ", "
        + american.state_abbr()
        + " "
        + american.postcode()
    )


def card(rng: random.Random) -> str:
    body = rng.choice(["62", "4", "51", "622848", "621700"])
    total = rng.choice([16, 19])
    body += "".join(rng.choices("0123456789", k=total - 1 - len(body)))
    return next(body + digit for digit in "0123456789" if is_luhn(body + digit))


def address(rng: random.Random, chinese: Faker) -> str:
    def draw(most):
        return rng.randint(1, most)

    room, estate = rng.randint(101, 1802), rng.choice(ESTATES)
    house = rng.choice(
        [
            f"{draw(999)}号",
            f"{draw(99)}号{estate}{draw(30)}栋{room}室",
            f"{draw(99)}号院{draw(9)}号楼{draw(6)}单元{room}",
            f"{draw(400)}弄{draw(60)}号{room}室",
        ]
    )
    own = rng.choice(CITIES) + rng.choice(STREETS) + house
    inside = f"{rng.choice(CITIES)}{estate}{draw(30)}栋{draw(3)}单元{room}室"
    return rng.choice([own, own, inside, chinese.address()])


def write_digits(number: str, *, groups: tuple[int, ...], rng: random.Random) -> str:
    """A number as people write it: joined, in groups, spaced out, in full width, with +86."""
    style = rng.choice(["joined", "joined", "grouped", "spaced", "wide", "invisible", "prefixed"])
    if style == "joined" or (style == "prefixed" and len(number) != 11):
        return number
    if style == "prefixed":
        return rng.choice(["+86", "+86 ", "86-", "0086"]) + number
    if style == "spaced":
        return " ".join(number)
    if style == "wide":
        return "".join(chr(ord(sign) + 0xFEE0) for sign in number)
    parts, start = [], 0
    for size in groups:
        parts.append(number[start : start + size])
        start += size
    joiner = "\u200b" if style == "invisible" else rng.choice(["-", " "])
    return joiner.join(part for part in parts if part)
