"""A judge behind a real server: orders swapped, faults counted, a kill survived."""

import dataclasses
import itertools
import json
import threading

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.contracts.errors import DataError, EndpointError, UnknownNameError
from limbeck.contracts.records import write_jsonl
from limbeck.distillation.endpoint.client import CallError
from limbeck.distillation.endpoint.config import EndpointConfig
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.judging.judge import JudgeConfig, read_verdict
from limbeck.judging.pairs import read_pairs
from limbeck.judging.run import judge_folder, run_judge
from tests.support import tiny_recipe
from tests.support.endpoint_server import KEY, MODEL, completion, serving
from tests.support.waiting import wait_for

BOTH = ("student", "bundle")
NUM = 12


def answered(place, text, *, form="single"):
    fields = dataclasses.fields(AnsweredQuestion)
    values = {item.name: "" for item in fields if item.type is str} | {
        "id": f"q{place}",
        "task": "recall",
        "form": form,
        "question": f"Question {place}?",
        "expected": ("right",),
        "answer": text,
        "correct": False,
        "agreement_ratio": 0.0,
        "confidence_ratio": 1.0,
        "option_scores": (),
    }
    return AnsweredQuestion(**values)


def write_answers(folder, **texts):
    (folder / "answers").mkdir(parents=True, exist_ok=True)
    for name, answers in texts.items():
        items = [answered(place, text) for place, text in enumerate(answers)]
        items.append(answered(99, "an option", form="choice"))
        write_jsonl(folder / "answers" / f"{name}.jsonl", map(dataclasses.asdict, items))
    return folder


@pytest.fixture
def report(tmp_path):
    student = ["good"] * 4 + ["bad"] * 4 + ["same"] * 4
    bundle = ["bad"] * 4 + ["good"] * 4 + ["same "] * 4
    return write_answers(tmp_path / "report", student=student, bundle=bundle)


def by_content(body):
    """Prefers the answer that says `good`, wherever it stands."""
    first = body["messages"][-1]["content"].partition("<first_answer>")[2]
    return completion("Because.\n" + ("FIRST" if first.startswith("\ngood") else "**Second.**"))


def judge(server, report, **settings):
    endpoint = EndpointConfig(
        url=server.url, model=MODEL, retry_seconds=0.01, max_concurrent=3, max_retries=3
    )
    config = JudgeConfig(endpoint=endpoint, **settings)
    return run_judge(report, models=BOTH, config=config)


def test_a_win_is_a_preference_in_both_orders(report):
    with serving(by_content) as server:
        found = judge(server, report)
    assert found.wins == (4, 4) and found.ties == found.num_same == 4 and found.num_pairs == NUM
    assert found.win_rate.value == 0.5 and found.win_rate.low < 0.5 < found.win_rate.high
    assert found.position_bias.value == 0 and found.prefers_first_ratio == 0.5
    assert len(server.asked) == 16 and {body["temperature"] for body in server.asked} == {0.0}


@pytest.mark.parametrize(("word", "ratio"), [("FIRST", 1.0), ("SECOND", 0.0)])
def test_a_judge_that_goes_by_place_gives_ties_and_all_the_bias(report, word, ratio):
    with serving(lambda body: completion(word)) as server:
        found = judge(server, report)
    assert found.wins == (0, 0) and found.ties == NUM and found.win_rate.value == 0.5
    assert found.win_rate.low < 0.5 < found.win_rate.high
    assert found.position_bias.value == 1 and found.position_bias.count == 8
    assert found.prefers_first_ratio == ratio


def test_a_tie_in_one_order_is_no_win(report):
    def half(body):
        first = body["messages"][-1]["content"].partition("<first_answer>")[2]
        return completion("FIRST" if first.startswith("\ngood") else "TIE")

    with serving(half) as server:
        found = judge(server, report)
    assert found.ties == NUM and found.position_bias.value == 1


def test_verdicts_are_kept_question_by_question(report):
    with serving(by_content) as server:
        judge(server, report)
    folder = judge_folder(report, models=BOTH, judge=MODEL)
    lines = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert [line["winner"] for line in lines] == ["student"] * 4 + ["bundle"] * 4 + ["tie"] * 4
    assert lines[0]["verdicts"] == ["first", "second"] and lines[-1]["verdicts"] is None
    assert lines[0]["answers"] == {"student": "good", "bundle": "bad"}


def test_busy_and_failing_servers_are_asked_again(report):
    def fault(body, tries):
        if tries == 1:
            return (429, {"Retry-After": "0.01"})
        return (500, {}) if tries == 2 else None

    with serving(by_content, fault) as server:
        found = judge(server, report)
    assert found.wins == (4, 4) and found.num_unreadable == 0


def test_malformed_replies_count_nowhere(report):
    def reply(body):
        malformed = "Question 0?" in body["messages"][-1]["content"]
        return completion("I cannot say.") if malformed else by_content(body)

    with serving(reply) as server:
        found = judge(server, report)
        assert found.num_unreadable == 1 and found.num_pairs == NUM - 1 and found.wins == (3, 4)
        with pytest.raises(EndpointError, match=r"1 of 12 pairs.*q0: no_verdict.*cannot say"):
            judge(server, report, max_unreadable_ratio=0.05)
    with serving(lambda body: completion("?")) as server:
        other = write_answers(report.parent / "other", student=["a"] * 3, bundle=["b"] * 3)
        with pytest.raises(EndpointError, match="3 of 3 pairs got no verdict"):
            judge(server, other)


@pytest.mark.parametrize(
    "reply",
    [
        "FIRST",
        "so\n\n**first**\n",
        "Verdict: FIRST.",
        "[[First]]",
        "So...\nwinner is first",
    ],
)
def test_verdicts_are_read_from_the_last_line(reply):
    assert read_verdict(reply) == "first"


@pytest.mark.parametrize("reply", ["FIRST or SECOND", "first of all, no", "FIRST\nbut why", "A"])
def test_anything_else_is_no_verdict(reply):
    with pytest.raises(CallError, match="no_verdict"):
        read_verdict(reply)


def test_a_refusing_server_stops_and_the_next_run_goes_on(report):
    def refuse_later(body, tries):
        return (401, {}) if len(server.asked) > 5 else None

    with serving(by_content, refuse_later) as server, pytest.raises(EndpointError, match="pairs"):
        judge(server, report)
    folder = judge_folder(report, models=BOTH, judge=MODEL)
    lines = map(json.loads, (folder / "calls.jsonl").read_text().splitlines())
    num_kept = sum(line["event"] == "ended" and not line["error"] for line in lines)
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    with serving(by_content, port=port) as again:
        found = judge(again, report)
    assert found.wins == (4, 4) and num_kept > 0 and len(again.asked) == 16 - num_kept


def command(server, report, *more):
    options = ["--judge", server.url, "--judge-model", MODEL, "--against", *BOTH]
    return ["evaluate", str(report), *options, *more]


def test_a_killed_run_goes_on(report, tmp_path):
    order, goes_on = itertools.count(), threading.Event()

    def hold(body, tries):
        """The run cannot end before it is killed."""
        if next(order) >= 4:
            goes_on.wait()

    with serving(by_content, hold) as server:
        log, warm = tmp_path / "log", tiny_recipe.warm()
        number = warm.start(*command(server, report), output=log)
        calls = judge_folder(report, models=BOTH, judge=MODEL) / "calls.jsonl"

        def has_begun():
            assert warm.wait(number, seconds=0) is None, log.read_text()
            return calls.is_file() and calls.read_text().count('"ended"') >= 2

        try:
            wait_for(has_begun)
        finally:
            tiny_recipe.kill(number)
            goes_on.set()
        num_kept = calls.read_text().count('"ended"')
        num_asked = len(server.asked)
        found = judge(server, report)
        assert found.wins == (4, 4)
        assert len(server.asked) - num_asked == 16 - num_kept


def test_the_command_prints_the_result(report, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(by_content) as server:
        words = command(
            server, report, "--judge-key", "JUDGE_KEY", "--output", str(tmp_path / "r.json")
        )
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert server.keys == {f"Bearer {KEY}"}
        for word in ("student", "bundle", "50.0 %", "order"):
            assert word in done.stdout
        assert json.loads((tmp_path / "r.json").read_text())["wins"] == [4, 4]
        assert KEY not in (tmp_path / "r.json").read_text()
        done = CliRunner().invoke(app, ["evaluate", str(report), "--judge", server.url])
        assert done.exit_code == 1 and "--judge-model" in done.stderr


def test_wrong_reports_and_models_are_named(report, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'bundle'"):
        read_pairs(report, models=("student", "bundel"))
    with pytest.raises(DataError, match="named twice"):
        read_pairs(report, models=("student", "student"))
    with pytest.raises(DataError, match="name a report"):
        read_pairs(tmp_path / "none", models=BOTH)
    write_answers(report, bundle=["bad"])
    with pytest.raises(DataError, match="other questions"):
        read_pairs(report, models=BOTH)
