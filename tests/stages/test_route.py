"""The stage: drafts of validation questions to a router, resumable, honest about what is shown."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from limbeck.contracts.answerer import Answer, as_prompt
from limbeck.contracts.artifacts import Parent, Work, hash_files
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError, LeakError
from limbeck.contracts.records import Record, write_jsonl
from limbeck.contracts.tier_router import TO_LARGEST, Draft, read_router
from limbeck.stages import route
from tests.support.artifacts import make_artifact
from tests.support.fake_answerer import LookUp

NUM_QUESTIONS = 300


def is_right(name, number):
    """The teacher answers four fifths; the small model's sure half is right, and little else."""
    if name == "teacher":
        return number % 5 != 0
    return number % 2 == 0 or number % 7 == 0


class Scripted(LookUp):
    """Answers `yes NUMBER` where it is right; the small one is surer there."""

    def answer(self, prompts, *, max_new_tokens):
        self.asked += prompts
        found = []
        for prompt in prompts:
            number = int(as_prompt(prompt).question.split()[1])
            right = is_right(self.name, number)
            text = f"yes {number}" if right else "no"
            found.append(Answer(text, 2, (0.9 if right else 0.3) - number / 10_000))
        return found

    @classmethod
    def open(cls, folder, *, num_threads, num_rows=1):
        found = cls(folder, num_threads=num_threads)
        found.name = folder.name
        OPENED.append(found)
        return found


OPENED = []


def make_work(tmp_path, *, count=NUM_QUESTIONS, train=()):
    corpus = make_artifact(tmp_path / "corpus", "corpus")
    (corpus.path / "records").mkdir(exist_ok=True)
    held_out = [
        Record(str(n), f"question {n} of the contract", f"yes {n}", f"g{n}", "qa")
        for n in range(count)
    ]
    for split, records in (("train", train), ("validation", held_out), ("test", ())):
        write_jsonl(corpus.path / "records" / f"{split}.jsonl", records)
    (corpus.path / "card.json").write_text("{}")
    parent = Parent(
        name="corpus", path=str(corpus.path), kind="corpus", content_hash="hash of corpus"
    )
    tiers = [
        make_artifact(tmp_path / name, "checkpoint", parents={"corpus": (parent,)})
        for name in ("teacher", "small")
    ]
    (tmp_path / "router").mkdir(exist_ok=True)
    return Work(
        "router",
        tmp_path / "router",
        tmp_path / "state",
        {"tiers": tuple(tiers), "corpus": (corpus,)},
    )


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    monkeypatch.setattr(route, "open_answerer", Scripted.open)
    OPENED.clear()


def config(**changes):
    settings = {"stage": "route", "tiers": ["teacher", "small"], "corpus": "corpus"}
    return route.Config.model_validate(settings | changes)


def read_drafts(work):
    lines = (work.folder / "drafts" / "small.jsonl").read_text().splitlines()
    return list(map(json.loads, lines))


def test_unsure_drafts_go_up_and_the_promise_is_shown(tmp_path):
    work = make_work(tmp_path)
    metrics = route.run(config(), work=work)
    router = read_router(work.folder)
    promise = router.file.promise
    assert promise.is_certified and promise.p_value <= 0.1 and promise.kept_ratio > 0.99
    assert metrics["promise"]["kept_ratio"] == promise.kept_ratio
    assert promise.num_fitted + promise.num_certified == NUM_QUESTIONS
    assert 0.05 < promise.largest_ratio < 0.5
    assert router.knows(["hash of teacher", "hash of small"])
    sure, unsure = (Draft("question 1 of the contract", "yes 1", ratio) for ratio in (0.9, 0.3))
    assert router.goes_up("hash of small", unsure) and not router.goes_up("hash of small", sure)
    assert len(read_drafts(work)) == NUM_QUESTIONS


def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path):
    whole = make_work(tmp_path)
    route.run(config(), work=whole)
    expected = hash_files(whole.folder)
    state = next(iter(whole.state.glob("*.jsonl")))
    lines = state.read_text().splitlines(keepends=True)
    state.write_text("".join(lines[:2]) + lines[2][:20])
    OPENED.clear()
    shutil.rmtree(whole.folder)
    whole.folder.mkdir()
    route.run(config(), work=whole)
    assert hash_files(whole.folder) == expected
    assert len(OPENED) == 1 and 0 < len(OPENED[0].asked) < NUM_QUESTIONS


def test_what_cannot_be_shown_is_not_promised(tmp_path, monkeypatch):
    """A small tier that is worse everywhere, and as sure as where it is right."""
    rng = np.random.default_rng(0)
    luck = rng.uniform(size=NUM_QUESTIONS)
    monkeypatch.setitem(
        globals(), "is_right", lambda name, n: luck[n] < (0.9 if name == "teacher" else 0.3)
    )
    monkeypatch.setattr(
        Scripted,
        "answer",
        lambda self, prompts, *, max_new_tokens: [
            Answer(f"yes {n}" if is_right(self.name, n) else "no 999", 2, 0.5)
            for n in (int(as_prompt(prompt).question.split()[1]) for prompt in prompts)
        ],
    )
    work = make_work(tmp_path)
    route.run(config(), work=work)
    file = read_router(work.folder).file
    assert not file.promise.is_certified and file.rule == TO_LARGEST
    assert "min_kept_ratio" in file.promise.describe()


def test_few_questions_promise_nothing_and_report_it(tmp_path):
    work = make_work(tmp_path, count=30)
    route.run(config(), work=work)
    promise = read_router(work.folder).file.promise
    assert not promise.is_certified
    assert "expected at least 20; hold more out with splits.validation_ratio" in promise.describe()


def test_no_validation_question_at_all_is_named(tmp_path):
    work = make_work(tmp_path, count=0)
    with pytest.raises(DataError, match="no record has a question"):
        route.run(config(), work=work)


def test_a_tier_that_trained_on_the_questions_is_found(tmp_path):
    """By its own corpus, which need not be the router's."""
    work = make_work(tmp_path)
    other = make_artifact(tmp_path / "others", "corpus")
    (other.path / "records").mkdir()
    leaked = Record("x", "Question 7 of the contract?", "yes 7", "x", "qa")
    write_jsonl(other.path / "records" / "train.jsonl", [leaked])
    parent = Parent(
        name="others", path=str(other.path), kind="corpus", content_hash="hash of others"
    )
    small = make_artifact(tmp_path / "small", "checkpoint", parents={"corpus": (parent,)})
    inputs = {**work.inputs, "tiers": (work.inputs["tiers"][0], small)}
    with pytest.raises(LeakError, match="question '7'"):
        route.run(config(), work=Work("router", work.folder, work.state, inputs))


def test_two_tiers_of_one_name_are_refused(tmp_path):
    work = make_work(tmp_path)
    (teacher, _), corpus = work.every("tiers"), work.one("corpus")
    twice = dataclasses.replace(work, inputs={"tiers": (teacher, teacher), "corpus": (corpus,)})
    with pytest.raises(ArtifactError, match="bear the name 'teacher'"):
        route.run(config(), work=twice)
    assert not OPENED


def test_wrong_settings_are_named():
    with pytest.raises(ValidationError, match="at least 2"):
        config(tiers=["teacher"])
    with pytest.raises(ValidationError, match="name one model twice"):
        config(tiers=["teacher", "teacher"])
    with pytest.raises(ValidationError, match="did you mean"):
        config(min_kept=0.9)


def test_the_corpus_that_is_read_is_the_routers_own(tmp_path):
    work = make_work(tmp_path)
    route.run(config(max_questions=100), work=work)
    kept = read_drafts(work)
    ids = {record.id for record in Corpus(work.one("corpus").path).records("validation")}
    assert len(kept) == 100 and {item["id"] for item in kept} <= ids
