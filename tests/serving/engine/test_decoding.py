"""The decoding loop: every request gets what it would get alone, whoever else is there."""

import random
from dataclasses import replace

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.answerer import Message, as_prompt
from limbeck.models.chat import ChatTemplate
from limbeck.runtimes import open_chat_model
from limbeck.runtimes.chat import Chat, FileCodec
from limbeck.serving.engine.decoding import DecodingLoop
from limbeck.serving.engine.messages import Finished, Generate, Piece, Refused, Sampling

QUESTIONS = ["高血压有哪些症状？", "哮喘看什么科？", "头晕 dizzy", "湿疹有哪些症状，看什么科？"]


@pytest.fixture(scope="module")
def answerer(bundle):
    return open_chat_model(bundle, num_threads=1, num_rows=4)


def make_loop(answerer, *, num_slots=4):
    return DecodingLoop(
        answerer.model, chat=answerer.chat, policy=AnswerPolicy(), num_slots=num_slots
    )


def request(id_, question, *, max_new_tokens=12, **settings):
    return Generate(id_, (Message("user", question),), max_new_tokens, **settings)


def run(loop, requests, *, seed=0):
    """The texts and ends of all requests, which arrive at random moments."""
    rng, waiting = random.Random(seed), list(requests)
    texts, ends = {}, {}
    while waiting or loop.has_work:
        events = []
        while waiting and (not loop.has_work or rng.random() < 0.3):
            events += loop.submit(waiting.pop(0))
        events += loop.step()
        for event in events:
            if isinstance(event, Piece):
                place = (event.id, event.choice)
                texts[place] = texts.get(place, "") + event.text
            else:
                ends[(event.id, getattr(event, "choice", 0))] = event
    return texts, ends


def test_greedy_answers_are_those_of_the_answerer(answerer):
    expected = [item.text for item in answerer.answer(QUESTIONS, max_new_tokens=12)]
    assert all(expected)
    requests = [request(number, question) for number, question in enumerate(QUESTIONS)]
    for num_slots in (1, 2, 4):
        texts, ends = run(make_loop(answerer, num_slots=num_slots), requests, seed=num_slots)
        assert [texts.get((number, 0), "") for number in range(4)] == expected
        assert {item.num_tokens for item in ends.values()} == {12}


def test_a_seed_repeats_an_answer_whoever_is_beside_it(answerer):
    sampled = request(9, QUESTIONS[0], sampling=Sampling(1.0, seed=5), num_choices=3)
    alone, _ = run(make_loop(answerer), [sampled])
    others = [request(number, question) for number, question in enumerate(QUESTIONS)]
    beside, _ = run(make_loop(answerer), [*others[:2], sampled, *others[2:]], seed=3)
    assert [beside[9, choice] for choice in range(3)] == [alone[9, choice] for choice in range(3)]
    assert len({alone[9, choice] for choice in range(3)}) > 1


def test_a_stop_text_ends_an_answer_before_it(answerer):
    (whole,) = answerer.answer(QUESTIONS[:1], max_new_tokens=12)
    stop = whole.text[4:6]
    texts, ends = run(make_loop(answerer), [request(1, QUESTIONS[0], stop=(stop,))])
    assert texts[1, 0] == whole.text[: whole.text.index(stop)]
    assert ends[1, 0].reason == "stop"
    assert ends[1, 0].num_tokens < 12


def test_log_probs_are_those_of_the_tokens(answerer):
    loop = make_loop(answerer)
    loop.submit(request(1, QUESTIONS[0], max_new_tokens=3, num_top_log_probs=2))
    events = []
    while loop.has_work:
        events += loop.step()
    tokens = [token for event in events if isinstance(event, Piece) for token in event.tokens]
    assert len(tokens) == 3
    for token in tokens:
        assert token.chosen == token.top[0]
        assert token.top[0].log_prob >= token.top[1].log_prob
    ratio = next(event for event in events if isinstance(event, Finished)).confidence_ratio
    logs = [token.chosen.log_prob for token in tokens]
    assert ratio == pytest.approx(2.718281828459045 ** (sum(logs) / 3))


def test_a_cancelled_request_is_computed_no_further(answerer):
    loop = make_loop(answerer, num_slots=2)
    for number in range(4):
        loop.submit(request(number, QUESTIONS[number], max_new_tokens=1000))
    loop.step()
    loop.cancel(0)  # is being written
    loop.cancel(3)  # waits
    seen = {event.id for _ in range(6) for event in loop.step()}
    assert seen == {1, 2}
    loop.cancel(1)
    loop.cancel(2)
    assert not loop.has_work


def test_what_the_model_cannot_read_is_refused(answerer):
    loop = make_loop(answerer)
    (long,) = loop.submit(request(1, "高" * 100_000))
    assert isinstance(long, Refused) and long.kind == "prompt too long"
    assert str(answerer.model.max_tokens - 1) in long.message
    (many,) = loop.submit(request(2, QUESTIONS[0], num_choices=9))
    assert isinstance(many, Refused) and "9 answers" in many.message
    assert not loop.has_work


def test_a_turn_that_the_template_leaves_out_is_refused(answerer, bundle):
    """Phi-3's first template wrote no system turn, and a client's instructions went unread."""
    source = "{% for m in messages if m.role != 'system' %}{{ m.content | trim }}\n{% endfor %}"
    chat = Chat(
        ChatTemplate(source, special_tokens={}),
        FileCodec(bundle / "tokenizer.json"),
        end_ids=answerer.chat.end_ids,
    )
    loop = DecodingLoop(answerer.model, chat=chat, policy=AnswerPolicy(), num_slots=1)
    turns = Message("system", "短"), Message("user", " 头晕 ")
    (refused,) = loop.submit(replace(request(1, "?"), messages=turns))
    assert isinstance(refused, Refused) and refused.kind == "prompt"
    assert "leaves out turn 1, the system's" in refused.message
    assert not loop.submit(replace(request(1, "?"), messages=turns[1:]))


def test_an_answer_never_outgrows_the_context(answerer):
    most = answerer.model.max_tokens
    num_prompt = len(answerer.chat.render(as_prompt(QUESTIONS[0])))
    _, ends = run(make_loop(answerer), [request(1, QUESTIONS[0], max_new_tokens=10**6)])
    end = ends[1, 0]
    assert end.num_tokens + end.num_prompt_tokens <= most
    assert end.num_prompt_tokens == num_prompt


def test_what_nobody_reads_before_the_end_comes_with_it(answerer):
    asked = request(1, QUESTIONS[0], num_choices=2, num_top_log_probs=1)
    pieces, texts, log_probs = {}, {}, {}
    for wanted in ("all", "first", "none"):
        loop = make_loop(answerer)
        loop.submit(replace(asked, pieces=wanted))
        found = []
        while loop.has_work:
            found += [event for event in loop.step() if isinstance(event, Piece)]
        mine = [event for event in found if event.choice == 1]
        pieces[wanted] = len(mine)
        texts[wanted] = "".join(event.text for event in mine)
        log_probs[wanted] = [token for event in mine for token in event.tokens]
    assert pieces["all"] > 2 == pieces["first"] and pieces["none"] == 1
    assert texts["all"] == texts["first"] == texts["none"]
    assert log_probs["all"] == log_probs["first"] == log_probs["none"]


def test_the_next_turn_of_a_conversation_is_read_from_where_it_goes_on(answerer):
    """And is answered as it would be if all of it were read again."""
    first = Message("user", "高血压有哪些症状，看什么科，平时要注意什么？" * 2)
    turns = [first, Message("assistant", "头晕、心悸"), Message("user", "哮喘看什么科？")]
    found = {}
    for max_prefix_bytes in (0, 2**22):
        loop = DecodingLoop(
            answerer.model,
            chat=answerer.chat,
            policy=AnswerPolicy(),
            num_slots=4,
            max_prefix_bytes=max_prefix_bytes,
        )
        requests = [Generate(1, (first,), 6), Generate(2, tuple(turns), 6, num_choices=2)]
        results = [run(loop, [item]) for item in requests]
        found[max_prefix_bytes] = [texts for texts, _ in results]
        known = [end.num_cached_tokens for _, ends in results for end in ends.values()]
        if max_prefix_bytes:
            assert known[0] == 0 and known[1] == known[2] >= 32
        else:
            assert known == [0, 0, 0]
    assert found[0] == found[2**22]
