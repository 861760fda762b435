"""Files in the encodings of many languages are read as what they are, short ones too."""

import pytest
from pydantic import ValidationError

from limbeck.contracts.errors import DataError
from limbeck.data.readers.encoding import detect_encoding
from tests.support.source_reading import read_source

FRENCH = "Où la douleur a-t-elle commencé ?;Près du cœur, d’après l’élève.\n"
GERMAN = "Wie groß ist die übliche Menge?;Täglich fünf Tropfen genügen völlig.\n"
SPANISH = "¿Cuándo empezó el daño?;Mañana hará una semana, según el señor Muñoz.\n"
PORTUGUESE = "Você não dormiu?;Não, por causa da medicação para o coração.\n"
POLISH = "Jak długo trwa gorączka?;Gorączka męczy mnie już trzeci dzień, proszę o pomoc.\n"
CZECH = "Můžu ještě dnes večer jíst?;Ne, musíte být až do zítřka nalačno, děkujeme.\n"
HUNGARIAN = "Hol található a tüdő?;A mellkasban, a szív két oldalán, védő csontok mögött.\n"
RUSSIAN = "Где болит сильнее всего?;Болит справа, под рёбрами, уже третий день.\n"
GREEK = "Πού πονάτε περισσότερο?;Πονάω δεξιά, κάτω από τα πλευρά, τρεις ημέρες.\n"
JAPANESE = "薬はいつ飲みますか？;食後に一錠ずつ、一日三回飲んでください。\n"
KOREAN = "약은 언제 먹어야 하나요?;식사 후에 하루 세 번 한 알씩 드세요.\n"
TRADITIONAL = "這種藥什麼時候吃？;飯後服用，每天三次，每次一片，請多喝水。\n"
SIMPLIFIED = "这种药什么时候吃？;饭后服用，每天三次，每次一片，请多喝水。\n"
CASES = [
    (FRENCH, "cp1252"),
    (GERMAN, "cp1252"),
    (SPANISH, "cp1252"),
    (PORTUGUESE, "cp1252"),
    (POLISH, "cp1250"),
    (CZECH, "cp1250"),
    (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8-r"),
    (JAPANESE, "shift_jis"),
    (JAPANESE, "euc_jp"),
    (JAPANESE, "iso2022_jp"),
    (KOREAN, "euc_kr"),
    (TRADITIONAL, "big5"),
    (SIMPLIFIED, "gb18030"),
    *((text, "mac-roman") for text in (FRENCH, GERMAN, SPANISH, PORTUGUESE)),
    (GERMAN, "cp850"),
    (POLISH, "cp852"),
    (CZECH, "mac-latin2"),
    (RUSSIAN, "mac-cyrillic"),
    (RUSSIAN, "cp866"),
    (GREEK, "mac-greek"),
    (FRENCH, "utf-16"),
    (SIMPLIFIED, "utf-16-le"),
    (RUSSIAN, "utf-16-be"),
    (GERMAN, "utf-8-sig"),
    (KOREAN, "utf-32"),
]
KEYED = [pytest.param(*case, id=f"{case[1]}-{case[0][:6]}") for case in CASES]


@pytest.mark.parametrize(("text", "encoding"), KEYED)
@pytest.mark.parametrize("repeats", [1, 30])
def test_texts_are_read_as_written(tmp_path, text, encoding, repeats):
    path = tmp_path / "a.csv"
    path.write_bytes(("question;answer\n" + text * repeats).encode(encoding))
    found = read_source("csv", path=path)
    assert set(found.pairs) == {tuple(text.strip().split(";"))} and not found.drops
    assert found.notes["separator"] == {"a.csv": ";"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Что делать при высокой температуре? Вызовите врача.".upper(), "koi8-r"),
        ("ЧТО ДЕЛАТЬ ПРИ ВЫСОКОЙ ТЕМПЕРАТУРЕ У РЕБЁНКА? " * 9, "koi8-r"),
        ("ЯКІ ЛІКИ МОЖНА ПРИЙМАТИ? ТІЛЬКИ ТІ, ЯКІ ПРИЗНАЧИВ ЛІКАР. " * 9, "koi8-u"),
        ("ЧТО ДЕЛАТЬ ПРИ ВЫСОКОЙ ТЕМПЕРАТУРЕ?", "cp1251"),
        ("מה עושים כשיש חום גבוה לילד? צריך לפנות לרופא ולתת הרבה שתייה.", "cp1255"),
        ("Geïnteresseerd in België en Oekraïne", "cp850"),
        ("Eén vraag over ideeën.", "cp437"),
    ],
)
def test_letters_that_fit_in_several_encodings(tmp_path, text, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert path.read_text(detect_encoding(path).name) == text


def test_hungarian_needs_more_than_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes((HUNGARIAN * 3).encode("cp1250"))
    assert HUNGARIAN in path.read_text(detect_encoding(path).name)


@pytest.mark.parametrize("text", [FRENCH, GERMAN, RUSSIAN])
def test_few_characters_leave_a_doubt_and_many_none(tmp_path, text):
    path = tmp_path / "a.csv"
    encoding = "cp1251" if text == RUSSIAN else "cp1252"
    path.write_bytes(text[:12].encode(encoding))
    assert path.read_bytes().isascii() or "set `encoding`" in detect_encoding(path).doubt
    path.write_bytes((text * 20).encode(encoding))
    assert not detect_encoding(path).doubt


def test_a_doubt_stands_in_the_card_and_a_set_encoding_decides(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\nŁódź,żółw\n".encode("iso8859-2"))
    doubtful = read_source("csv", path=path)
    assert "encoding" in doubtful.notes["encoding_uncertain"]["a.csv"]
    found = read_source("csv", path=path, encoding="iso8859-2")
    assert found.pairs == [("Łódź", "żółw")]
    assert found.notes == {"encoding": {"a.csv": "iso8859-2"}}
    with pytest.raises(ValidationError, match="no text encoding 'utf8mb4'"):
        read_source("csv", path=path, encoding="utf8mb4")
    with pytest.raises(ValidationError, match="no text encoding 'base64'"):
        read_source("csv", path=path, encoding="base64")


def test_foreign_lines_in_utf8_are_dropped_and_turn_no_other_line(tmp_path):
    path = tmp_path / "a.csv"
    good = [f"où {number},déjà {number}\n".encode() for number in range(9)]
    path.write_bytes(b"question,answer\n" + b"".join(good) + "café,thé\n".encode("cp1252"))
    found = read_source("csv", path=path)
    assert len(found.records) == 9 and found.records[0].answer == "déjà 0"
    assert found.reasons == [("11", "undecodable")]


def test_half_of_the_lines_may_be_foreign(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\nhow much,400 µg\n".encode() + b"and now,25 \xb5g\n")
    found = read_source("csv", path=path)
    assert found.pairs == [("how much", "400 µg")] and found.reasons == [("3", "undecodable")]


def test_a_sign_of_currency_may_be_a_euro(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes((FRENCH * 9).encode("cp1252") + "Coût;50 €\n".encode("iso8859-15"))
    assert "iso8859-15" in detect_encoding(path).doubt


def test_characters_far_behind_the_beginning_count(tmp_path):
    path = tmp_path / "a.csv"
    plain = "plain,text\n" * 20_000
    path.write_bytes(("question,answer\n" + plain + FRENCH.replace(";", ",")).encode("cp1252"))
    assert detect_encoding(path).name == "cp1252"


@pytest.mark.parametrize("content", [b"\0\1\2\3" * 9, b"\x7fELF\0\0\0\1", b"PK\3\4\0\0\x08\0"])
def test_what_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"not a text file|is a ZIP archive, as spreadsheets are, not rows of text"
    ):
        detect_encoding(path)
