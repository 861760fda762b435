"""Text decoded wrongly before its file was written: found, counted, and left as it is."""

import json
import logging

import pytest

from limbeck.data.readers.mojibake import find_mojibake
from tests.support.source_reading import read_source


def misread(text, encoding, *, written="utf-8", errors="ignore"):
    return text.encode(written).decode(encoding, errors=errors)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
@pytest.mark.parametrize(
    "text", ["été à l\u2019hôpital", "Größe 2\u20133 cm", "Das ist \u201eschön\u201c."]
)
def test_western_text_is_found(text, encoding):
    assert find_mojibake(f"Note: {misread(text, encoding)}")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "cp932"])
@pytest.mark.parametrize("text", ["你好，世界", "高血压有哪些症状？", "注意休息，多喝水。"])
def test_chinese_in_utf8_read_otherwise_is_found(text, encoding):
    assert find_mojibake(f"1. {misread(text, encoding)} (2)")


def test_what_it_was_is_shown():
    assert find_mojibake("浣犲ソ") == ("浣犲ソ", "你好")
    assert find_mojibake("le caf\u00c3\u00a9 noir") == ("caf\u00c3\u00a9", "caf\u00e9")
    assert find_mojibake(misread("你好，医生", "latin-1", written="gbk"))[1] == "你好，医生"
    assert find_mojibake("It\u9225\u6a9a fine")
    assert find_mojibake("回答：锟斤拷锟斤拷") == ("锟斤拷", "")


@pytest.mark.parametrize(
    "text",
    [
        "体温≥38℃，±0.5 µg，10⁻⁷ mol/L，T₃、T₄，Ⅱ型①②③",
        "皮肤骨髓纤维化、面肌抽搐、月经失调月经失调、增强皮肤弹性、尖吻蝮蛇、联通",
        "饕餮魑魅魍魉龃龉，囧囧囧，α-干扰素",
        "naïve façade Ångström Ærø, œuvre, cœur",
        "Größe: 5\u201310 µm (½ Tablette), \u201eÄpfel\u201c",
        "¿Qué? ¡Sí! ÉTÉ, N° 5, №7, 10 €, 2×3²",
        "žluťoučký kůň, Łódź, İstanbul, český",
        "Привет, мир! Ελληνικά κείμενα. شكرا جزيلا हिन्दी ไทย",
        "안녕하세요 세계, こんにちは世界、カタカナ",
        "┌──┐│表│ ★★★ ©®™ …… ～～",
        "plain ASCII ~ `code` {x}",
    ],
)
def test_meant_text_of_every_script_is_not(text):
    assert find_mojibake(text) is None


def test_a_source_counts_and_shows_them_and_changes_nothing(tmp_path, caplog):
    wrong = [
        misread("Où est la pharmacie ?", "cp1252"),
        misread("头痛怎么办，发热怎么办", "gb18030"),
    ]
    rows = [{"question": text, "answer": "ok"} for text in (*wrong, "Où ?", "头痛怎么办")]
    rows.append(
        {
            "messages": [
                {"role": "user", "content": wrong[0] + "!"},
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
            ]
        }
    )
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = read_source("jsonl", path=path)
    asked = [record.question for record in found.records if record.answer == "ok"]
    assert asked == [*wrong, "Où ?", "头痛怎么办"]
    assert not found.drops
    value = found.notes["decoded_wrongly_before"]["own"]
    assert value["entries"] == 3
    assert value["examples"][0].startswith("own.jsonl:1: OÃ")
    assert "own: 3 entries hold text that was decoded wrongly" in caplog.text


def test_a_right_source_has_no_such_note(tmp_path, caplog):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Où ?", "answer": "là"}\n', encoding="utf-8")
    assert "decoded_wrongly_before" not in read_source("jsonl", path=path).notes
    assert not caplog.records


def test_labelled_texts_are_checked_too(tmp_path):
    for name, text in (("a", misread("头痛怎么办呢", "gb18030")), ("b", "咳嗽")):
        row = json.dumps({"query": text, "label": "x"})
        (tmp_path / f"{name}.jsonl").write_text(row + "\n", encoding="utf-8")
    found = read_source(
        "labelled",
        path=tmp_path / "a.jsonl",
        evaluation_path=tmp_path / "b.jsonl",
        task="t",
        form="{text}",
    )
    value = found.notes["decoded_wrongly_before"]
    assert {name: item["entries"] for name, item in value.items()} == {"a (a.jsonl)": 1}
