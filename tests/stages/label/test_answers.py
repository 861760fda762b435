"""The stage, against a real server on this machine that behaves, and that does not."""

import json
import time

import pytest
import yaml
from pydantic import ValidationError

from limbeck.contracts.errors import ArtifactError, EndpointError, LeakError
from limbeck.contracts.records import Question, write_jsonl
from limbeck.stages import label
from tests.support import tiny_recipe
from tests.support.endpoint_server import KEY, MODEL, answer, completion, ended, serving
from tests.support.label_runs import NUM, name, train_records


def test_the_servers_answers_replace_those_of_training_alone(go, corpus, tmp_path):
    with serving(answer, lambda body, tries: 0.03) as server:
        folder, metrics = go(server, entry={"system": "说短。"}, extra={"top_p": 0.9})
    records = train_records(folder)
    assert [record.answer for record in records[:-1]] == [
        "答" + record.question[:4] for record in records[:-1]
    ]
    assert records[-1].answer == "只是一段文字。"
    assert all([item.part for item in record.entities] == ["question"] for record in records[:-1])
    for path in ("records/validation.jsonl", "records/test.jsonl", "questions/recall.jsonl"):
        assert (folder / path).read_bytes() == (corpus.path / path).read_bytes()
    assert set(server.questions) == {record.question for record in records[:-1]}
    assert set(server.questions.values()) == {1}
    assert {body["messages"][0]["content"] for body in server.asked} == {"说短。"}
    assert {body["top_p"] for body in server.asked} == {0.9}
    assert 1 < server.most_at_once <= 4
    assert metrics["asked"] == metrics["labelled"] == metrics["calls"] == NUM
    assert metrics["not_asked"] == 1
    assert metrics["cost"] == NUM * (10 * 1 + 5 * 2)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["labelled_by"]["model"] == MODEL
    # The key went to the server and nowhere else.
    assert server.keys == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert go.calls in files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_key_that_the_server_echoes_is_not_kept(go, tmp_path):
    with serving(lambda body: completion(f"your key is {KEY}")) as server:
        folder, _ = go(server)
    assert train_records(folder)[0].answer == "your key is ***"
    assert KEY not in go.calls.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "0"}),
        (500, {}),
        (503, {}),
        "truncated",
        "no json",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": "text"}]}',
        "[" * 3000,
        6.0,
    ],
    ids=[
        "429",
        "500",
        "503",
        "truncated",
        "not JSON",
        "no choices",
        "empty choices",
        "no message",
        "nested",
        "slow",
    ],
)
def test_what_may_pass_is_tried_again(fault, go):
    with serving(answer, lambda body, tries: fault if tries == 1 else None) as server:
        patience = {"timeout_seconds": 2.0, "max_concurrent": NUM} if fault == 6.0 else {}
        folder, metrics = go(server, **patience)
    assert len(train_records(folder)) == NUM + 1
    assert set(server.questions.values()) == {2}
    assert metrics["calls"] == 2 * NUM
    lines = ended(go.calls)
    assert sum(bool(line["error"]) for line in lines) == NUM
    # An answer that may have been computed and got lost is counted at its most.
    refused = isinstance(fault, tuple)
    assert all((line["cost"] == 0) == refused for line in lines if line["error"])


def test_a_server_sets_how_long_to_wait(go):
    started = time.monotonic()
    wait = (429, {"Retry-After": "0.6"})
    with serving(answer, lambda body, tries: wait if tries == 1 else None) as server:
        go(server, max_concurrent=NUM)
    assert time.monotonic() - started > 0.6
    with (
        serving(answer, lambda body, tries: (429, {"Retry-After": "9000"})) as server,
        pytest.raises(EndpointError, match="demands a wait of 9,000 s"),
    ):
        go(server)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "refuses the API key; set the environment variable"),
        (402, "payment first"),
        (403, "for this model"),
        (404, "no such address or model; check `url`"),
    ],
)
def test_what_no_patience_mends_stops_at_once(status, text, go):
    with (
        serving(answer, lambda body, tries: (status, {})) as server,
        pytest.raises(EndpointError, match=text),
    ):
        go(server)
    assert len(server.asked) <= 4


def test_no_server_at_all(go):
    with serving(answer) as server:
        pass
    with pytest.raises(EndpointError, match="gives no answer, tried 2 times: ConnectError"):
        go(server, max_retries=1)


def test_another_model_is_named_and_its_answer_kept(go):
    with serving(lambda body: completion("好", model="small-7b")) as server:
        with pytest.raises(EndpointError, match="served_as: small-7b"):
            go(server, max_concurrent=1)
        assert len(server.asked) == 1
        go(server, max_concurrent=1, served_as="small-7b")
        assert set(server.questions.values()) == {1}
    with serving(lambda body: completion("好", model=f"{MODEL}-2026-01")) as server:
        go(server)


BAD = {
    "empty_answer": completion("  "),
    "cut_off": completion("太长", finish="length"),
    "withheld": completion("", finish="content_filter"),
    "broken_text": completion("\ud800"),
}


def test_unusable_answers_are_counted_and_named(go):
    def respond(body):
        number = list(known).index(body["messages"][-1]["content"])
        return list(BAD.values())[number] if number < len(BAD) else answer(body)

    refused = (400, {})
    with serving(respond, lambda body, tries: refused if last in str(body) else None) as server:
        known = {f"训{name(number)}怎么办？": number for number in range(NUM)}
        last = name(NUM - 1)
        with pytest.raises(EndpointError, match=r"5 of 12 records got no usable answer.*cut_off"):
            go(server)
        folder, metrics = go(server, entry={"max_failed_ratio": 0.5})
        kept, _ = go(server, entry={"max_failed_ratio": 0.5, "failed": "keep"})
    assert metrics["failed"] == dict.fromkeys((*BAD, "refused"), 1)
    assert metrics["labelled"] + sum(metrics["failed"].values()) == metrics["asked"] == NUM
    assert len(train_records(folder)) == NUM - 5 + 1
    assert [item.answer[0] for item in train_records(kept)] == ["训"] * 4 + ["答"] * 7 + [
        "训",
        "只",
    ]
    lines = (folder / "failed.jsonl").read_text(encoding="utf-8").splitlines()
    failed = {item["id"]: item["reason"] for item in map(json.loads, lines)}
    assert failed == dict(
        zip(
            [f"训{name(number)}" for number in (0, 1, 2, 3, NUM - 1)],
            [*BAD, "refused"],
            strict=True,
        )
    )
    # Answers were bought once, good or bad; what was refused had none.
    assert sorted(server.questions.values()) == [1] * (NUM - 1) + [3]


def test_records_that_fail_one_after_the_other_stop_the_run(go, monkeypatch):
    monkeypatch.setattr("limbeck.distillation.endpoint.client.MAX_CONSECUTIVE_FAILURES", 3)
    with (
        serving(lambda body: completion("")) as server,
        pytest.raises(EndpointError, match="3 records in a row got no usable answer"),
    ):
        go(server, max_concurrent=1)
    assert len(server.asked) == 3


def test_money_ends_before_the_limit_and_nothing_is_paid_twice(go):
    spent = 0.0

    def count(body):
        nonlocal spent
        usage = (sum(len(item["content"].encode()) for item in body["messages"]), 8)
        spent += usage[0] * 1 + usage[1] * 2
        return answer(body) | completion("答", usage=usage)

    entry = {"max_new_tokens": 16}
    with serving(count) as server:
        with pytest.raises(EndpointError, match=r"of max_cost 250 are spent, .* are left") as told:
            go(server, entry=entry, max_cost=250)
        assert 0 < spent <= 250
        assert f"{spent:.6g} of max_cost" in str(told.value)
        assert f"{250 - spent:.6g} are left" in str(told.value)
        assert f"{len(server.asked)} of {NUM} records are labelled" in str(told.value)
        first = len(server.asked)
        assert 0 < first < NUM
        _, metrics = go(server, entry=entry, max_cost=10_000)
    assert set(server.questions.values()) == {1}
    assert metrics["calls"] == NUM - first
    assert metrics["reused_calls"] == first
    assert metrics["cost"] == spent


def test_a_killed_run_asks_nothing_twice(corpus, tmp_path):
    path = tmp_path / "killed.yaml"
    with serving(answer, lambda body, tries: 0.15) as server:
        entry = {
            "stage": "label",
            "corpus": str(corpus.path),
            "write": {"kind": "answers"},
            "endpoint": {"url": server.url, "model": MODEL, "max_concurrent": 2},
        }
        path.write_text(yaml.safe_dump({"answers": entry}))
        runs = tmp_path / "runs"
        number = tiny_recipe.warm().start("run", path, "--runs", runs, output=tmp_path / "log")
        calls = runs / "killed" / ".persistent" / "answers" / "calls.jsonl"
        deadline = time.monotonic() + tiny_recipe.LONGEST_RUN_SECONDS
        while not calls.is_file() or len(ended(calls)) < 4:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.01)
        tiny_recipe.kill(number)
        answered = {line["record"] for line in ended(calls)}
        assert 4 <= len(answered) < NUM
        number = tiny_recipe.warm().start("run", path, "--runs", runs, output=tmp_path / "log")
        assert tiny_recipe.warm().wait(number) == 0, (tmp_path / "log").read_text()
    twice = [question for question, count in server.questions.items() if count > 1]
    assert len(twice) <= 2
    assert not any(question.removesuffix("怎么办？") in answered for question in twice)
    assert set(server.questions.values()) <= {1, 2}
    assert "spent" in (tmp_path / "log").read_text()
    records = train_records(runs / "killed" / "answers")
    assert all(record.answer.startswith("答") for record in records[:-1])


def test_a_question_of_an_evaluation_is_never_sent(go, corpus):
    path = corpus.path / "questions" / "recall.jsonl"
    shown = train_records(corpus.path)[3].question
    write_jsonl(path, [Question("q", "recall", shown, ("不",), "single")])
    with serving(answer) as server, pytest.raises(LeakError, match="share"):
        go(server)
    assert not server.asked


def test_no_log_probabilities_is_a_reason(go):
    with serving(answer) as server, pytest.raises(EndpointError, match="no_logprobs"):
        go(server, write={"kind": "logprobs", "top": 3})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"endpoint": {"url": "ftp://x", "model": "m"}}, "expected an address"),
        ({"endpoint": {"url": "http://x:port", "model": "m"}}, "ort"),
        ({"endpoint": {"url": "http://me:secret@x/v1", "model": "m"}}, "must hold no key"),
        ({"endpoint": {"url": "http://x", "model": "m", "max_cost": 1}}, "limits nothing"),
        ({"endpoint": {"url": "http://x", "model": "m", "key_variable": "sk-12 3"}}, "pattern"),
        ({"endpoint": {"url": "http://x", "model": "m", "extra": {"n": 2}}}, "remove them"),
        ({"write": {"kind": "preferences", "samples": 2}}, "3 samples or more"),
        ({"write": {"kind": "preferences", "better_by": {"fakts": 1}}}, "facts"),
        ({"write": {"kind": "preferences", "better_by": {}}}, "names no reward"),
        ({"write": {"kind": "answer"}}, "did you mean 'answers'"),
        ({"write": {"kind": "answers", "sampels": 2}}, "unknown key"),
        ({"write": {"kind": "answers", "samples": 2}}, "set write.temperature"),
        ({"write": {"kind": "answers", "samples": 2, "temperature": 1}}, "3 samples or more"),
        ({"write": {"kind": "answers", "min_agreement_ratio": 0.5}}, "raise write.samples"),
        ({"write": {"kind": "answers", "keep": "all"}}, "raise write.samples"),
        ({"write": {"kind": "answers", "seed": 1}}, "nothing is drawn"),
        ({"write": {"kind": "answers", "seed": 1, "temperature": 1}}, "as endpoint.seed_field"),
        ({"endpoint": {"url": "http://x", "model": "m", "seed_field": "seed"}}, "that are drawn"),
        (
            {
                "write": {"kind": "preferences"},
                "endpoint": {"url": "http://x", "model": "m", "extra": {"seed": 1}},
            },
            "all samples are the same",
        ),
        (
            {
                "endpoint": {
                    "url": "http://x",
                    "model": "m",
                    "seed_field": "seed",
                    "extra": {"seed": 1},
                }
            },
            "is set by seed_field",
        ),
    ],
)
def test_configs_that_cannot_work_are_refused(changes, text):
    entry = {
        "stage": "label",
        "corpus": "corpus",
        "write": {"kind": "answers"},
        "endpoint": {"url": "http://x", "model": "m"},
    }
    with pytest.raises(ValidationError, match=text):
        label.Config.model_validate(entry | changes)


def test_keys_are_asked_for_by_name(go, monkeypatch):
    with serving(answer) as server:
        with pytest.raises(EndpointError, match="stands in the recipe"):
            go(server, extra={"user": KEY})
        monkeypatch.setenv("TEACHER_KEY", "schlüssel")
        with pytest.raises(EndpointError, match="holds no API key"):
            go(server)
        monkeypatch.delenv("TEACHER_KEY")
        with pytest.raises(EndpointError, match=r"'TEACHER_KEY'.*not set"):
            go(server)
    assert not server.asked


def test_a_damaged_call_log_is_named(go):
    with serving(answer) as server:
        go(server)
        whole = go.calls.read_bytes()
        go.calls.write_bytes(whole + b'{"half')
        _, metrics = go(server)
        assert metrics["calls"] == 0
        assert go.calls.read_bytes() == whole
        go.calls.write_bytes(b"nonsense\n" + whole)
        with pytest.raises(ArtifactError, match="line 1 is no call"):
            go(server)


def test_the_sample_that_agrees_most_is_the_answer(go):
    seen = {}

    def respond(body):
        question = body["messages"][-1]["content"]
        place = seen[question] = seen.get(question, -1) + 1
        return completion(("甲乙丙丁" if question == last else "甲乙乙丙")[place])

    last = f"训{name(NUM - 1)}怎么办？"
    write = {
        "kind": "answers",
        "samples": 4,
        "temperature": 0.7,
        "seed": 5,
        "min_agreement_ratio": 0.3,
    }
    with serving(respond) as server:
        folder, metrics = go(server, write=write, seed_field="seed")
        seeds = {body["seed"] for body in server.asked}
        again, second = go(server, write=write | {"keep": "distinct"}, seed_field="seed")
    assert len(seeds) == 4
    assert {item.answer for item in train_records(folder)[:-1]} == {"乙"}
    # That its samples disagree is no failure, though none may fail.
    assert metrics["failed"] == {"disagreeing": 1} and metrics["calls"] == 4 * NUM
    assert second["calls"] == 0
    assert second["answers_kept"] == 3 * (NUM - 1)
    assert [item.answer for item in train_records(again)[:3]] == ["乙", "甲", "丙"]
