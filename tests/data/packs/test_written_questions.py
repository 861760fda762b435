"""Questions that people wrote: what they name, what they are apart from, and what is refused."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from limbeck.contracts.errors import DataError, LeakError
from limbeck.contracts.leaks import NearIndex, check_leaks
from limbeck.contracts.records import Question, Record
from limbeck.data.packs.load import load_pack
from limbeck.data.packs.written_questions import read_written
from limbeck.data.readers.pack_facts import Config
from limbeck.evaluation.tasks import Response, score_response

LAW = Path(__file__).parents[2] / "support" / "packs" / "contracts_law"


@pytest.fixture(scope="module")
def questions(pack):
    items = Config().read(pack=pack, seed=0)
    return [item for item in items if isinstance(item, Question) and item.is_written]


def test_the_medical_pack_asks_about_everything(pack):
    free, triage = pack.written["free"], pack.written["triage"]
    assert len(free) >= 400 and len(triage) >= 240
    assert {item.subject for item in free} == set(pack.subjects)
    homes = Counter(pack.specialty_of[item.subject] for item in free)
    assert set(homes) == set(pack.description.specialties) and min(homes.values()) >= 30
    asked = Counter(relation for item in free for relation in item.relations)
    answered = {key for key, item in pack.description.relations.items() if item.attributes}
    assert set(asked) == answered and min(asked.values()) >= 25
    assert sum(len(item.relations) == 2 for item in free) >= 80
    assert set(Counter(item.specialty for item in triage).values()) == {21}


def test_no_frame_is_repeated(pack):
    """People do not fill in forms: without its subject, no question is like another one."""
    texts = [item.question.replace(item.subject, "") for item in pack.written["free"]]
    texts += [item.question for item in pack.written["triage"]]
    near = NearIndex(texts)
    for place, text in enumerate(texts):
        assert near.find(text) == place, (text, texts[near.find(text)])


def test_answers_are_the_facts(pack, questions):
    asked = {item.question: item for item in questions}
    for item in pack.written["free"]:
        question = asked[item.question]
        items = [text for key in item.relations for text in pack.items(item.subject, key)]
        assert question.answers == tuple(dict.fromkeys(items))
        is_one = item.relations == ("specialty",)
        assert question.form == ("single" if is_one else "list")
        joined = pack.description.joiner.join(question.answers)
        assert score_response(question, Response(joined, 1.0)).correct
        half = pack.description.joiner.join(pack.items(item.subject, item.relations[0]))
        if len(item.relations) == 2 and "specialty" not in item.relations:
            assert not score_response(question, Response(half, 1.0)).correct
    for item in pack.written["triage"]:
        assert asked[item.question].answers == (pack.description.specialty_name(item.specialty),)
        assert len(asked[item.question].options) == 12


def test_no_training_form_about_any_subject_is_like_a_written_question(pack):
    """Every form filled with every name, compared with every question, without any shortcut."""
    written = [item.question for members in pack.written.values() for item in members]
    near = NearIndex(written)
    unknown = pack.description.unknown
    for key in pack.description.relations:
        for form in pack.forms[key].train:
            for name in (*pack.subjects, *unknown.train):
                assert near.find(form.format(subject=name)) is None, (form, name)


def test_a_record_that_nearly_equals_a_written_question_is_a_leak(questions):
    text = questions[0].question
    record = Record("r", f"请问{text}呀", "不知道", "own", "file")
    with pytest.raises(LeakError, match="share"):
        check_leaks([record], held_out=questions)
    generated = Question("q", "recall", text, ("x",), "single")
    assert check_leaks([record], held_out=[generated]) == 1


def write(folder, *lines, name="plain.jsonl"):
    shutil.copytree(LAW, folder / "pack")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "pack" / "evaluation" / name).write_text(text, encoding="utf-8")
    return str(folder / "pack")


GOOD = {"question": "who has to agree to what here", "specialty": "formation"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1]", "the line"),
        ({"question": "", "specialty": "formation"}, "question"),
        ({"question": "what now"}, "expected 'subject' and 'relations', or 'specialty'"),
        ({"question": "what now", "subject": "offer"}, "expected 'subject' and 'relations'"),
        (GOOD | {"subject": "offer", "relations": ["area"]}, "or 'specialty' alone"),
        (GOOD | {"answer": "x"}, "answer"),
        ({"question": "q", "subject": "ofer", "relations": ["area"]}, "did you mean 'offer'"),
        ({"question": "q", "subject": "offer", "relations": ["aera"]}, "did you mean 'area'"),
        ({"question": "q", "subject": "offer", "relations": ["area", "area"]}, "name one twice"),
        ({"question": "q", "specialty": "formatoin"}, "did you mean 'formation'"),
        (GOOD | {"question": "Who has to agree, to what here?!"}, "stands in plain.jsonl:1"),
        (
            {"question": "list elements of Offer", "subject": "offer", "relations": ["elements"]},
            "nearly equals the training form 'List the elements of offer.'",
        ),
    ],
    ids=str,
)
def test_a_fault_is_named_with_its_file_and_line(tmp_path, line, message):
    folder = write(tmp_path, GOOD, line, GOOD | {"question": "last"})
    with pytest.raises(DataError) as found:
        load_pack(folder)
    assert "plain.jsonl:2: " in str(found.value) and message in str(found.value)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("empty.jsonl", [], "holds no questions"),
        ("recall.jsonl", [GOOD], "'recall' is a task of generated questions"),
        ("area_from_elements.jsonl", [GOOD], "is a task of generated questions"),
        ("notes.txt", [GOOD], "expected files TASK.jsonl"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, lines, message):
    folder = write(tmp_path, *lines, name=name)
    with pytest.raises(DataError, match=name) as found:
        load_pack(folder)
    assert message in str(found.value)


@pytest.mark.parametrize("name", ["高血压", "1型糖尿病", "-3度烧伤", "2.5", "é", "C", "²级", "ﾊﾟ"])
def test_a_question_is_refused_where_it_nearly_equals_a_filled_form(tmp_path, pack, name):
    """By the whole comparison, wherever digits, signs and marks meet what fills a form."""
    texts = [
        "3{subject}",
        ".{subject}5",
        "1,{subject}00有哪些症状",
        "{subject}",
        "e{subject}\u0301病",
    ]
    texts += ["{subject}4/5怎么治", "哪些检查能查出{subject}"]
    form = pack.forms["symptoms"].model_copy(update={"train": tuple(texts)})
    subject = next(iter(pack.subjects.values()))
    small = dataclasses.replace(
        pack,
        description=pack.description.model_copy(
            update={"relations": {"symptoms": pack.description.relations["symptoms"]}}
        ),
        forms={"symptoms": form},
        subjects={name: subject},
    )
    filled = [text.format(subject=name) for text in texts]
    refused = 0
    for text in filled:
        for place in range(len(text) + 1):
            asked = text[:place] + "吗" + text[place + 1 :]
            line = {"question": asked, "subject": name, "relations": ["symptoms"]}
            (tmp_path / "free.jsonl").write_text(json.dumps(line), encoding="utf-8")
            near = NearIndex([asked])
            expected = any(near.find(other) is not None for other in filled)
            try:
                read_written(tmp_path, pack=small)
            except DataError as error:
                assert expected and "nearly equals" in str(error), error
                refused += 1
            else:
                assert not expected, (asked, filled)
    assert refused


def test_a_relation_without_facts_is_refused(tmp_path):
    folder = write(tmp_path, {"question": "q", "subject": "offer", "relations": ["elements"]})
    path = Path(folder) / "facts" / "formation.yaml"
    text = path.read_text(encoding="utf-8")
    (Path(folder) / "pack.yaml").write_text(
        (Path(folder) / "pack.yaml")
        .read_text(encoding="utf-8")
        .replace("attributes: [elements]}", "attributes: [remedies]}"),
        encoding="utf-8",
    )
    assert "name: offer" in text
    with pytest.raises(DataError, match=r"plain\.jsonl:1.*holds no elements of 'offer'"):
        load_pack(folder)
