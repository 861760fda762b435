import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Entity, Record
from limbeck.data.filters.entities import Lexicon, LexiconFile, guess_specialty, read_names

NAMES = {
    "糖尿病": "disease",
    "糖尿病视网膜病变": "disease",
    "视网膜": "part",
    "头痛": "symptom",
    "痛": "symptom",
}


def test_the_leftmost_longest_name_wins():
    found = list(Lexicon(NAMES).find("糖尿病视网膜病变会头痛吗，糖尿病呢"))
    assert found == [
        (0, "糖尿病视网膜病变", "disease"),
        (9, "头痛", "symptom"),
        (13, "糖尿病", "disease"),
    ]


def test_marks_stand_where_they_say():
    record = Record("1", "头痛怎么办", "先排除糖尿病", "g", "s")
    for entity in Lexicon(NAMES).mark(record):
        text = getattr(record, entity.part)
        assert text[entity.start : entity.start + len(entity.text)] == entity.text
    assert list(Lexicon({}).find("头痛")) == []


def test_a_disease_counts_more_than_a_symptom_and_a_tie_counts_nothing():
    specialties = {"高血压": ("cardiology",), "头痛": ("neurology",), "皮疹": ("dermatology",)}
    disease, pain, rash = (
        Entity("高血压", "disease", 0, "question"),
        Entity("头痛", "symptom", 3, "question"),
        Entity("皮疹", "symptom", 5, "question"),
    )
    assert guess_specialty([disease, pain], specialties) == "cardiology"
    assert guess_specialty([pain, rash], specialties) == ""
    assert guess_specialty([], specialties) == ""


def test_lexicon_files_are_read_and_empty_ones_refused(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("紫雪\t12\n\n骨痛灵酊\n", encoding="gb18030")
    assert read_names(LexiconFile(path=path, type="drug")) == ["紫雪", "骨痛灵酊"]
    path.write_text("\n\n")
    with pytest.raises(DataError, match="no name"):
        read_names(LexiconFile(path=path, type="drug"))
