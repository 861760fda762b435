"""Light normalisation changes no sign: what it may do is stated here, over all of Unicode."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.filters.normalization.light import clean

CODE = "def add(a, b):\n    return a + b  # sum\n\n| x | $y$ |\n- [link](https://example.org)"
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
PLAIN = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\ufeff", exclude_categories=["Cc"])
)
MARKUP = st.sampled_from(
    [
        "**",
        "_",
        "`",
        "$",
        "\\frac{a}{b}",
        "<think>",
        "</b>",
        "| - |",
        "#",
        "  \n",
        "\t",
        "\n\n",
        "- ",
    ]
)
NUMBER = st.from_regex(
    r"[-+−±~≈<>≤≥=]?[0-9]{1,4}([.,·][0-9]{1,3})?([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}|\^-?[0-9])?"
    r" ?(mg|µg|μg|Ω|\u2126|\u212a|\u212b|℃|°C|%|‰|½|①|mM|m²)?",
    fullmatch=True,
)


@given(st.text())
def test_twice_changes_nothing(text):
    assert clean(clean(text)) == clean(text)


@given(st.text())
def test_what_it_removes_are_controls_and_outer_blanks(text):
    """All else is canonically the same text: marks at most join their letter."""
    after = unicodedata.normalize("NFD", clean(text))
    before = unicodedata.normalize("NFD", text)
    blank = re.compile(r"[\s\x00-\x1f\x7f\ufeff]")
    before = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", before)
    assert blank.sub("", after) == blank.sub("", before)


@given(PLAIN)
def test_a_composed_text_of_one_line_is_left_to_the_code_point(text):
    """But for the blanks at its end, where its letters and marks are one character already."""
    text = unicodedata.normalize("NFC", text).strip()
    assert clean(text) == text


@given(st.lists(NUMBER | MARKUP, max_size=8).map("".join))
def test_numbers_signs_units_and_markup_are_left_to_the_code_point(text):
    text = f"x{text}x"
    assert clean(text) == text


@given(
    st.lists(
        st.sampled_from(["5", "3", ".", "-", "\0", "\x0b", "\x0c", "\x1f", "\x7f", "\r", "\ufeff"])
    )
)
def test_no_control_joins_two_numbers(pieces):
    text = "a" + "".join(pieces) + "a"
    assert re.findall(r"\d+", clean(text)) == re.findall(r"\d+", text)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "    return x",
        "a line  \nwith a hard break",
        "\u2126 \u212a \u212b µ \u2329x\u232a \u037e",
        "\u05e9\u05bc\u05c1 \u0915\u093c \u0e01\u0e33 \u0644\u0627\u064e",
        "\uf900 \U0002f800",
        "x \u2260 y, a \u226e b, = \u0338",
        "q\u0301\u0300\u0327",
        "می\u200cخواهم 👩\u200d⚕️ \u2066abc\u2069",
        "-2.5 SD, −5, 10⁻⁷, ½, ≥38, 1–2",
        "<think>\n1 < 2\n</think>",
    ],
)
def test_what_stays(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cafe\u0301 Vie\u0323\u0302t", "caf\u00e9 Vi\u1ec7t"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("\u304b\u3099", "\u304c"),
        ("a\r\nb\rc\x0bd", "a\nb\nc\nd"),
        (" \n\n    x = 1\n\n", "    x = 1"),
        ("\ufeffx\x07 \x1b[31my\x1b[0m", "x y"),
        (CODE + "  \r\n\ufeff", CODE),
        ("", ""),
    ],
)
def test_what_changes(before, after):
    assert clean(before) == after
