"""`prepare` leaves texts alone unless asked, and counts what it changes and drops."""

import json
import random

import pytest

from limbeck.contracts.errors import DataError, LimbeckError
from tests.support.prepared_corpora import (
    ANSWER,
    CONSULT,
    dirty,
    prepare,
    read_all,
    write_rows,
)

OTHERS_TEXTS = [
    ("T值多少？", "-2.5 SD 及以下"),
    ("保存温度", "-20℃"),
    ("科学计数法", "10⁻⁷ mol/L，½ 片，①5mg②3mg"),
    ("code", "def f(a_b):\n    return a_b == 1  # $x$\n"),
    ("table", "| drug | dose |\n| --- | --- |\n| a | 100 mg |"),
    ("think", "<think>1 < 2</think><answer>yes</answer>"),
    ("contact", "$50 to help_desk@example.org, https://example.org/faq (now)"),
    ("marks", "e\u0301 \u2126 שָׁלוֹם ไทย"),
    ("short", "5"),
]


def test_texts_of_a_file_are_left_alone(tmp_path):
    """To the code point, and every record stays: only what is asked for changes or drops any."""
    path = write_rows(tmp_path / "own.jsonl", *OTHERS_TEXTS)
    corpus, counts = prepare(tmp_path / "run", {"kind": "jsonl", "path": path}, pack="")
    found = {record.question: record.answer for record in read_all(corpus)}
    assert found == dict(OTHERS_TEXTS)
    assert counts["dropped"] == counts["changed"] == {}


def test_changes_are_counted_with_examples(tmp_path, capfd):
    rows = [(f"体温{n}", f"３８．{n}摄氏度，注意[休息]★") for n in range(5)]
    path = write_rows(tmp_path / "own.jsonl", *rows)
    source = {"kind": "jsonl", "path": path, "normalization": "zh"}
    corpus, counts = prepare(tmp_path / "run", source, pack="")
    assert counts["changed"] == {"symbols": 5, "units": 5}
    assert counts["sources"]["own"]["changed"] == counts["changed"]
    card = json.loads((corpus / "card.json").read_text(encoding="utf-8"))
    examples = card["sources"]["own"]["changed_examples"]["symbols"]
    assert len(examples) == 3 and examples[0]["place"] == "own.jsonl:1"
    assert (examples[0]["before"], examples[0]["after"]) == (
        "３８．0摄氏度，注意[休息]★",
        "38.0摄氏度，注意[休息]",
    )
    shown = capfd.readouterr().err
    assert (
        " own " in shown
        and "changed: widths" in shown
        and "３８．0摄氏度" in shown
        and "-> 38.0" in shown
    )
    page = (corpus / "card.html").read_text(encoding="utf-8")
    assert "改写 changed" in page and "３８．0摄氏度" in page


def test_a_source_that_loses_too_much_stops_the_stage(tmp_path, capfd):
    rows = [(f"问题{n}", ANSWER if n > 2 else "") for n in range(20)]
    path = write_rows(tmp_path / "own.jsonl", *rows)
    source = {"kind": "jsonl", "path": path}
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "run", source)
    text = str(error.value)
    for part in ("'own'", "3 of its 20", "15.0%", "5.0%", "missing_field", "own.jsonl:1", "0.15"):
        assert part in text, text
    assert "missing field" in capfd.readouterr().err
    _, counts = prepare(tmp_path / "again", source | {"max_dropped_ratio": 0.15})
    assert counts["kept"] == 17


def test_repetitions_and_rows_left_out_are_no_faults(tmp_path):
    rows = [{"question": "头痛", "answer": ANSWER, "use": "1"}] * 9
    rows += [{"question": f"问题{n}", "answer": ANSWER, "use": "0"} for n in range(9)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"kind": "jsonl", "path": path, "where": {"use": "1"}, "max_dropped_ratio": 0}
    _, counts = prepare(tmp_path / "run", source)
    assert counts["dropped"] == {"filtered": 9, "duplicate": 8}


def test_half_a_character_in_a_drop_is_shown_escaped(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"question": "头痛", "answer": "休息"}\n{"question": "\\ud800"}\n', encoding="utf-8"
    )
    source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
    corpus, counts = prepare(tmp_path / "run", source, pack="")
    assert counts["kept"] == 1 and (corpus / "card.html").is_file()


def test_nothing_left_of_a_text_is_a_drop(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", ("头痛", "★★"), ("😀", ANSWER), ("发热", ANSWER))
    _, counts = prepare(tmp_path / "run", dirty(path))
    assert (counts["kept"], counts["dropped"]) == (1, {"nothing_left": 2})


def test_mutated_files_are_counted_or_named(tmp_path):
    """Every damage to a source is a named error, or drops that keep the books balanced."""
    original = (CONSULT / "part2.jsonl").read_bytes()
    chooser = random.Random(0)
    for number in range(16):
        data = bytearray(original[: chooser.randrange(len(original))])
        for _ in range(chooser.choice([0, 3, 300])):
            if data:
                data[chooser.randrange(len(data))] = chooser.randrange(256)
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data)
        source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
        try:
            _, counts = prepare(tmp_path / str(number), source)
        except LimbeckError as error:
            assert str(number) in str(error) or "no record is left" in str(error)
        else:
            assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
