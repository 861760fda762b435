import pytest

from limbeck.contracts.errors import ArtifactError
from limbeck.serving.facts import make_store, read_store


def test_what_a_corpus_holds_is_read_and_has_a_key(facts_file, store, tmp_path):
    path = tmp_path / "facts.json"
    path.write_text(facts_file.model_dump_json(), encoding="utf-8")
    found = read_store(tmp_path)
    assert found.facts == store.facts and found.names == store.names
    path.write_text(facts_file.model_dump_json(indent=1), encoding="utf-8")
    assert read_store(tmp_path).key != found.key
    assert len(found.key) == 64


def test_no_facts_and_damaged_ones_are_named(facts_file, tmp_path):
    with pytest.raises(ArtifactError, match=r"no facts\.json.*limbeck run"):
        read_store(tmp_path)
    (tmp_path / "facts.json").write_text(facts_file.model_dump_json()[:-9], encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"facts\.json: damaged"):
        read_store(tmp_path)
    (tmp_path / "facts.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArtifactError, match="damaged"):
        read_store(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"冠心病": ("冠心病", "高血压")}, "is a name of '高血压' and of '冠心病'"),
        ({"冠心病": ("冠心病", "HYPERTENSION?")}, "'hypertension' is a name of"),
        ({"冠心病": ("冠",)}, "too short"),
        ({"冠心病": ("冠\ue000病",)}, "too short"),
    ],
)
def test_a_name_that_could_be_two_subjects_is_refused(facts_file, names, message):
    with pytest.raises(ValueError, match=message):
        make_store(facts_file.replace(names={**facts_file.names, **names}))
