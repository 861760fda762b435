"""Another server's stream: events cut anywhere, counts of several kinds, and nonsense."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError, RefusedError
from limbeck.serving.engine.chat_stream import AnswerReader, EventReader, describe_request
from limbeck.serving.engine.messages import Generate, Sampling
from limbeck.serving.place import OpenAiHttp

PLACE = OpenAiHttp(kind="openai_http", url="http://127.0.0.1:1/v1")
REQUEST = Generate(0, (Message("user", "你好"),), 9)


def chunk(text: object = "", *, index=0, reason=None, logprobs=None, **more):
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return json.dumps({"choices": [choice | {"logprobs": logprobs}], **more})


def listed(*tokens):
    return {"content": [{"token": text, "logprob": value} for text, value in tokens]}


def read(*data, request=REQUEST):
    reader = AnswerReader(request)
    pieces = [piece for item in data for piece in reader.take(item)]
    return pieces, reader.finish(queue_seconds=0.0, decode_seconds=0.0)


@given(st.lists(st.integers(1, 60), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_events_are_found_wherever_their_bytes_are_cut(cuts, newline):
    texts = ["高血压\u2028", '{"a": 1}', "two\nlines", "[DONE]"]
    lines = [": a comment", "event: message"]
    for text in texts:
        lines += [f"data: {line}" for line in text.split("\n")] + [""]
    content = (newline.join(lines) + newline).encode()
    reader, found = EventReader(), []
    for size in cuts:
        found += reader.push(content[:size])
        content = content[size:]
    assert found + reader.push(content) == texts


def test_what_is_sent_is_openais_protocol():
    request = Generate(
        *(0, (Message("system", "kurz"), Message("user", "你好")), 9),
        sampling=Sampling(0.5, top_p=0.9, top_k=3, seed=2**40 + 5),
        stop=("。",),
        num_choices=2,
        num_top_log_probs=4,
    )
    assert describe_request(request, model="big", place=PLACE) == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "kurz"},
            {"role": "user", "content": "你好"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        **{"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 5},
        **{"max_tokens": 9, "stop": ["。"], "n": 2, "logprobs": True, "top_logprobs": 4},
    }
    bare = describe_request(REQUEST, model="big", place=PLACE.replace(logprobs=False))
    assert {"seed", "n", "top_k", "top_p", "stop", "logprobs"}.isdisjoint(bare)
    new = PLACE.replace(limit_field="max_completion_tokens")
    assert describe_request(REQUEST, model="big", place=new)["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("settings", "place", "named"),
    [
        ({"num_choices": 2}, {"options": ["seed"]}, "n"),
        ({"sampling": Sampling(1.0, top_k=2)}, {"options": ["n"]}, "top_k"),
        ({"sampling": Sampling(1.0, seed=2, has_seed=True)}, {"options": []}, "seed"),
        ({"num_top_log_probs": 0}, {"logprobs": False}, "logprobs"),
        ({"images": (Path("x.img"),)}, {}, "images"),
    ],
)
def test_what_the_server_does_not_read_is_refused_by_name(settings, place, named):
    request = Generate(0, REQUEST.messages, 9, **settings)
    with pytest.raises(RefusedError, match=f"does not take {named};"):
        describe_request(request, model="big", place=PLACE.replace(**place))


def test_an_answer_with_log_probabilities_has_their_geometric_mean():
    wanted = Generate(0, REQUEST.messages, 9, num_top_log_probs=0)
    pieces, (end,) = read(
        chunk(),
        chunk("高", logprobs=listed(("高", -0.5))),
        chunk("血", logprobs=listed(("血", -1.5))),
        chunk(reason="length"),
        json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}),
        "[DONE]",
        request=wanted,
    )
    assert [piece.text for piece in pieces] == ["高", "血"]
    assert pieces[1].tokens[0].chosen.log_prob == -1.5
    assert (end.reason, end.num_prompt_tokens, end.num_tokens) == ("length", 7, 2)
    assert end.confidence_ratio == pytest.approx(0.36787944)


def test_without_log_probabilities_there_is_no_confidence():
    pieces, (end,) = read(chunk("好"), chunk("的"), chunk(reason="stop"), "[DONE]")
    assert end.confidence_ratio is None
    assert end.num_tokens == 2  # nobody counted, and a piece is a token at least
    assert pieces[0].tokens == ()


def test_counts_of_all_answers_of_each_and_on_the_way():
    both = Generate(0, REQUEST.messages, 9, num_choices=2)
    ends = [chunk("a", index=0, reason="stop"), chunk("b", index=1, reason="stop")]

    def counts(*usages, choices=()):
        found = [
            json.dumps(
                {
                    "choices": list(choices),
                    "usage": {"prompt_tokens": 5, "completion_tokens": number},
                }
            )
            for number in usages
        ]
        _, done = read(*ends, *found, request=both)
        return sum(item.num_tokens for item in done), done[0].num_prompt_tokens

    assert counts(7) == (7, 5)  # OpenAI's: of all
    assert counts(3, 4) == (7, 5)  # llama.cpp's: one for each answer
    on_the_way = [{"index": 0, "delta": {}}]
    assert counts(3, 7, choices=on_the_way) == (7, 5)  # the latest of those so far


def test_what_a_limbeck_service_adds_is_kept():
    unknown = {"status": "unknown", "confidence": 0.2}
    _, (end,) = read(chunk("不知道。"), chunk(reason="stop", limbeck=unknown))
    assert (end.status, end.confidence_ratio) == ("unknown", 0.2)
    _, (end,) = read(chunk("好"), chunk(reason="stop", limbeck={"status": "odd"}))
    assert (end.status, end.confidence_ratio) == ("answered", None)
    _, (end,) = read(chunk("好"), chunk(reason="content_filter"))
    assert end.status == "withheld"


@pytest.mark.parametrize(
    "data",
    [
        *("nonsense", "[]", "{", "null", '"text"', '{"choices": 3}', '{"choices": [3]}'),
        *('{"choices": [{"index": 9, "delta": {}}]}', '{"choices": [{"index": -1, "delta": {}}]}'),
        *(chunk(3), chunk(reason="abort"), chunk("x", logprobs=listed(("x", None)))),
        chunk("x", logprobs={"content": [{"token": "x", "logprob": float("nan")}]}),
        "[" * 100_000,
    ],
)
def test_nonsense_is_an_error_and_not_an_answer(data):
    with pytest.raises(EngineDownError, match="no part of a chat completion"):
        read(data)


def test_a_server_that_breaks_off_gives_no_answer():
    with pytest.raises(EngineDownError, match="before the answer's end"):
        read(chunk("half"), "[DONE]")
    with pytest.raises(EngineDownError, match="broke off: out of memory"):
        read(chunk("half"), json.dumps({"error": {"message": "out of memory"}}))
    with pytest.raises(EngineDownError, match="no text"):
        EventReader().push(b"data: \xff\n\n")
    with pytest.raises(EngineDownError, match="more than"):
        EventReader().push(b"x" * (2**22 + 1))
