import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Entity, Record
from limbeck.data.filters.entities import Lexicon, guess_specialty
from limbeck.data.readers.lexicon import LexiconFile, read_names

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


def test_marks_stand_where_stated():
    record = Record("1", "头痛怎么办", "先排除糖尿病", "g", "s")
    for entity in Lexicon(NAMES).mark(record):
        text = getattr(record, entity.part)
        assert text[entity.start : entity.start + len(entity.text)] == entity.text
    assert list(Lexicon({}).find("头痛")) == []


def test_votes_are_the_packs_and_a_tie_counts_nothing(pack):
    assert (pack.votes("disease"), pack.votes("symptom"), pack.votes("other")) == (3, 1, 1)
    home = pack.specialties_of_name
    disease = next(name for name, key in pack.specialty_of.items() if home[name] == (key,))
    away = [
        name
        for name, type_ in pack.names.items()
        if type_ == "symptom" and len(home[name]) == 1 and home[name] != home[disease]
    ]
    other = next(name for name in away if home[name] != home[away[0]])
    marks = [Entity(disease, "disease", 0, "question"), Entity(away[0], "symptom", 3, "question")]
    assert guess_specialty(marks, pack=pack) == home[disease][0]
    tie = [marks[1], Entity(other, "symptom", 5, "question")]
    assert guess_specialty(tie, pack=pack) == ""
    assert guess_specialty([], pack=pack) == ""


def test_lexicon_files_are_read_and_empty_ones_refused(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("紫雪\t12\n\n骨痛灵酊\n", encoding="gb18030")
    assert read_names(LexiconFile(path=path, type="drug")) == ["紫雪", "骨痛灵酊"]
    path.write_text("\n\n")
    with pytest.raises(DataError, match="no name"):
        read_names(LexiconFile(path=path, type="drug"))
