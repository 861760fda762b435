import pytest
import yaml

from limbeck import packs
from limbeck.contracts.errors import DataError, LimbeckError, UnknownNameError
from limbeck.data.packs.load import load_pack


def test_the_medical_pack_is_complete(pack):
    assert "medical" in packs.names()
    assert len(pack.description.specialties) == 12
    assert set(pack.specialty_of.values()) == set(pack.description.specialties)
    assert len(pack.subjects) >= 180
    english = [disease.english for disease in pack.subjects.values()]
    assert len(set(english)) == len(english)
    for disease in pack.subjects:
        for key, relation in pack.description.relations.items():
            items = pack.items(disease, key)
            assert bool(items) == bool(relation.attributes), (disease, key)
            assert len(set(items)) == len(items), (disease, key)
            assert not any(pack.description.joiner in item or "，" in item for item in items)


def test_every_relation_has_forms_enough(pack):
    for key, forms in pack.forms.items():
        assert len(set(forms.train)) >= (6 if key == "triage" else 10), key
        assert len(set(forms.evaluation)) >= 3, key
    every = [text for forms in pack.forms.values() for text in (*forms.train, *forms.evaluation)]
    assert len(set(every)) == len(every)


def test_terms_cover_every_symptom_and_drug(pack):
    terms = yaml.safe_load((pack.folder / "terms.yaml").read_text(encoding="utf-8"))
    missing = {name for name, type_ in pack.names.items() if type_ != "disease"} - set(terms)
    assert not missing


def test_unknown_names_are_apart(pack):
    unknown = pack.description.unknown
    assert len(set(unknown.train)) >= 60 and len(set(unknown.evaluation)) >= 30
    assert not set(unknown.train) & set(unknown.evaluation)


def test_departments_lead_to_specialties(pack):
    assert pack.find_specialty("心血管科") == "cardiology"
    assert pack.find_specialty("小儿内科") == "pediatrics"
    assert pack.find_specialty("营养科") == ""


WORDING = """
questions: {symptoms: {zh: [<subject>有哪些症状]}}
aliases: {高血压: [高血压病]}
"""


def copy_pack(pack, folder):
    (folder / "facts").mkdir()
    (folder / "wording.yaml").write_text(WORDING, encoding="utf-8")
    for name in ("pack.yaml", "questions.yaml", "facts/cardiology.yaml"):
        (folder / name).write_text(
            (pack.folder / name).read_text(encoding="utf-8"), encoding="utf-8"
        )
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pack.yaml", "language: zh", "language: [zh"),
        ("pack.yaml", "language: zh", "lingua: zh"),
        ("pack.yaml", "attributes: [symptoms]", "attributes: [symptom]"),
        ("pack.yaml", "    疟疾,", "    高血压,"),
        ("questions.yaml", "{subject}看哪个科？", "高血压看哪个科？"),
        ("questions.yaml", "triage:", "sorting:"),
        ("wording.yaml", "symptoms:", "symptom:"),
        ("wording.yaml", "symptoms:", "transmission:"),
        ("wording.yaml", "高血压: [", "高血鸭: ["),
        ("wording.yaml", "<subject>", "<name>"),
        ("facts/cardiology.yaml", "specialty: cardiology", "specialty: heart"),
        ("facts/cardiology.yaml", "  - name: 冠心病", "  - name: 高血压"),
        ("facts/cardiology.yaml", "symptoms: [", "symptoms: [1, "),
    ],
)
def test_faults_name_their_file(pack, tmp_path, name, old, new):
    folder = copy_pack(pack, tmp_path)
    assert load_pack(str(folder)).subjects
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LimbeckError, match=path.name.replace(".", r"\.")) as found:
        load_pack(str(folder))
    assert isinstance(found.value, DataError)


def test_an_unknown_pack_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'medical'"):
        load_pack("medicla")
