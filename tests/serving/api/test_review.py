"""The review queue over HTTP: who sees it, its pages, and what a verdict changes."""

import json

import httpx2 as httpx
import pytest
from sqlalchemy import select

from limbeck.data.packs.load import empty_pack
from limbeck.data.readers.journal import Config as Reader
from limbeck.serving.journal.audit import verify
from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.export import export
from limbeck.serving.journal.open import open_journal
from limbeck.serving.journal.queries import ExchangeFilter, read_all
from limbeck.serving.journal.schema import ledger
from limbeck.serving.keys import add_key
from tests.support.journal import make_exchange, make_feedback
from tests.support.running_service import Running

EXCHANGES = [
    make_exchange(0, confidence=0.9),
    make_exchange(1, tier="large", question="我叫张伟，<b>胃疼</b>？"),
    make_exchange(2, status="declined", answer="不知道。", confidence=0.1),
    make_exchange(3, status="withheld", answer="请咨询医生。"),
    make_exchange(4, confidence=0.2, history=("早", "你好")),
    make_exchange(5, status="declined", tier="", answer="不开处方。", is_machine_made=False),
    make_exchange(6, confidence=0.3),
]
FEEDBACK = [
    make_feedback(0, "e1", thumbs="down"),
    make_feedback(1, "e6", corrected_answer="多喝水"),
]


class Kept:
    """A service with a journal and keys."""

    def __init__(self, running, keys, url):
        self.running, self.keys, self.url = running, keys, url

    def read(self, key="nurse", **query):
        return self.running.get("/v1/review", params=query, headers=self.head(key))

    def judge(self, key="nurse", **content):
        return self.running.post(content, path="/v1/review", headers=self.head(key))

    def head(self, key):
        return {"Authorization": f"Bearer {self.keys[key]}"}

    def ids(self, **query):
        # Of a page without what chance adds.
        return [
            item["id"] for item in self.read(**query).json()["data"] if item["reasons"] != ["audit"]
        ]


@pytest.fixture(scope="module")
def kept(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviewed")
    path, url = folder / "keys.json", str(folder / "journal" / "journal.sqlite")
    scopes = {"nurse": ("review",), "ward": ("chat", "feedback"), "chief": ("admin",)}
    keys = {name: add_key(path, name=name, scopes=item) for name, item in scopes.items()}
    journal = open_journal(url)
    with Running(bundle, keys=path, journal=journal) as running:
        yield Kept(running, keys, url)
    journal.close()


@pytest.fixture(scope="module")
def filled(kept):
    """After a look at a journal without a row, which may make no file that others could read."""
    assert kept.read().json() == {"object": "list", "data": [], "next": None}
    assert kept.judge(id="e0", verdict="accept").status_code == 404
    journal = open_journal(kept.url)
    for item in (*EXCHANGES, *FEEDBACK):
        assert journal.put(item)
    assert journal.flush(60.0)
    journal.close()
    return kept


def test_only_reviewers_see_what_others_asked(filled):
    assert filled.read("ward").status_code == 403
    assert filled.judge("ward", id="e1", verdict="accept").status_code == 403
    assert filled.running.get("/v1/review").status_code == 401
    assert filled.read("chief").status_code == 200


def test_pages_and_filters(filled):
    found = filled.read().json()
    assert found["next"] is None
    assert filled.ids() == ["e6", "e4", "e3", "e2", "e1"]
    items = {item["id"]: item for item in found["data"]}
    assert items["e1"]["question"] == "我叫[姓名]，<b>胃疼</b>？"
    assert "thumbs_down" in items["e1"]["reasons"]
    assert items["e4"]["history"] == ["早", "你好"]
    assert items["e6"]["feedback"][0]["corrected"] == "多喝水"
    assert filled.ids(reason="unknown") == ["e2"]
    assert filled.ids(reason=["withheld", "corrected"]) == ["e6", "e3"]
    assert filled.ids(reason="low_confidence") == ["e6", "e4"]
    assert filled.ids(reason="low_confidence", max_confidence=0.25) == ["e4"]
    assert filled.ids(tier="large") == ["e1"]
    first = filled.read(limit=1, reason=["unknown", "withheld"]).json()
    assert [item["id"] for item in first["data"]] == ["e3"]
    second = filled.read(limit=1, reason=["unknown", "withheld"], before=first["next"]).json()
    assert [item["id"] for item in second["data"]] == ["e2"]
    assert second["next"] is None


@pytest.mark.parametrize("name", ["nurse", "ward"])
def test_a_wrong_method_is_answered_with_the_right_ones(filled, name):
    """Whatever the key is good for."""
    found = httpx.request("PUT", filled.running.url + "/v1/review", headers=filled.head(name))
    assert found.status_code == 405
    assert found.headers["allow"] == "GET, HEAD, POST"


def test_what_is_no_question_or_verdict_is_refused(filled):
    for query, status in (({"reason": "dull"}, 422), ({"limit": 0}, 422), ({"page": 2}, 400)):
        assert filled.read(**query).status_code == status
    for content, status in (
        ({"id": "nobody", "verdict": "accept"}, 404),
        ({"id": "e1", "verdict": "correct"}, 422),
        ({"id": "e1", "verdict": "accept", "corrected": "x"}, 422),
        ({"id": "e1", "verdict": "accept", "by": "me"}, 400),
    ):
        assert filled.judge(**content).status_code == status
    assert "e1" in filled.ids()


def test_a_verdict_is_one_more_row_which_exports_and_corpora_know(filled, tmp_path):
    engine = open_database(parse_url(filled.url), timeout_seconds=5.0)
    with engine.connect() as connection:
        before = connection.execute(select(ledger)).all()
    verdicts = [
        {"id": "e1", "verdict": "accept", "comment": "fine"},
        {"id": "e2", "verdict": "correct", "corrected": "低嘌呤饮食，电话13800138000"},
        {"id": "e6", "verdict": "dismiss"},
    ]
    for item in verdicts:
        assert filled.judge(**item).json()["status"] == "recorded"
        assert item["id"] not in filled.ids()
    with engine.connect() as connection:
        after = connection.execute(select(ledger).order_by(ledger.c.seq)).all()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3
    assert not verify(engine).faults
    path = tmp_path / "feedback.jsonl"
    export(read_all(engine, ExchangeFilter()), path, shape="corpus")
    engine.dispose()
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [item for line in lines for item in json.loads(line)["feedback"]]
    assert {item["by"] for item in said if item["role"] == "reviewer"} == {"nurse"}
    # A user's correction that a reviewer dismissed teaches nothing, whoever is believed.
    for judged_by in ("reviewers", "anyone"):
        reader = Reader(path=path, judged_by=judged_by)
        records = [
            item for item in reader.read(pack=empty_pack(), seed=0) if hasattr(item, "answer")
        ]
        assert [(item.id.rpartition(":")[2], item.answer) for item in records] == [
            ("e1", "低嘌呤饮食1"),
            ("e2", "低嘌呤饮食，电话[手机号]"),
        ]


def test_without_keys_only_this_machine_under_its_own_name(running):
    found = running.get("/v1/review", headers={"Host": "rebound.example"})
    assert found.status_code == 403
    assert "rebound" not in found.text
    for host in ("localhost:8000", "[::1]", "127.0.0.2"):
        found = running.get("/v1/review", headers={"Host": host})
        assert found.status_code == 503
        assert found.json()["error"]["code"] == "no_journal"
