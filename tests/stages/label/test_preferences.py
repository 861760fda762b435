"""Pairs of a better and a worse answer, from what a server samples."""

import pytest

from limbeck.contracts.errors import DataError
from tests.support.endpoint_server import completion, serving
from tests.support.label_runs import NUM, name, train_records


def vary(*texts):
    """Answers in turn, by how often the question came."""
    seen = {}

    def respond(body):
        question = body["messages"][-1]["content"]
        seen[question] = seen.get(question, -1) + 1
        return completion(texts[seen[question] % len(texts)].format(question[:3]))

    return respond


def test_preferences_by_agreement(go):
    texts = ("头痛、发热", "发热、头痛", "头痛、发热、咳嗽", "咳血")
    with serving(vary(*texts)) as server:
        folder, metrics = go(server, write={"kind": "preferences", "samples": 4})
        again, second = go(server, write={"kind": "preferences", "samples": 4})
    for record in train_records(folder)[:-1]:
        assert (record.answer, record.rejected) == ("头痛、发热", "咳血")
    assert metrics["pairs"] == NUM
    assert set(server.questions.values()) == {4}
    assert second["calls"] == 0
    assert train_records(again) == train_records(folder)


def test_preferences_by_rewards(go):
    with serving(vary("{}冷", "{}热")) as server:
        write = {"kind": "preferences", "samples": 2, "better_by": {"facts": 1.0}}
        folder, _ = go(server, write=write)
    for record in train_records(folder)[:-1]:
        assert (record.answer, record.rejected) == (record.id + "热", record.id + "冷")


def test_questions_without_a_better_answer_have_no_pair(go):
    first = name(0)

    def respond(body):
        same = first not in body["messages"][-1]["content"]
        return completion("一样") if same else mixed(body)

    mixed = vary("一、二", "一、二", "三")
    with serving(respond) as server:
        folder, metrics = go(server, write={"kind": "preferences", "samples": 3})
        assert metrics["pairs"] == 1
        assert metrics["without_pair"] == {"all_alike": NUM - 1}
        assert [bool(item.rejected) for item in train_records(folder)] == [True] + [False] * NUM
    with (
        serving(lambda body: completion("一样")) as server,
        pytest.raises(DataError, match="no question got two answers"),
    ):
        go(server, write={"kind": "preferences", "samples": 3, "temperature": 0.7})
