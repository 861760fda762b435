"""Sessions: rows join and leave while others run, and nothing is computed for free slots."""

import random

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MistralConfig, MistralForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import build_without_weights, load_model
from limbeck.models.torch_session import TorchSession, check_decodable
from limbeck.runtimes import open_answerer, open_runtime
from limbeck.runtimes.greedy import GreedyAnswerer, Request, decode_answers
from limbeck.runtimes.transformers import NumpySession, open_chat
from tests.support.families import make_family
from tests.support.tiny_checkpoints import QUESTIONS, make_checkpoint

PROMPTS = [[5, 9, 7, 11, 6], [8, 4], [10], [6, 5, 4, 9, 8, 7, 12, 5], [7, 7, 7]]
LENGTHS = [4, 9, 2, 7, 5]
MODELS = [("transformers", "qwen3"), ("transformers", "moe"), ("onnx", "qwen3"), ("onnx", "llama")]
MODELS += [("gguf", "qwen3"), ("gguf", "llama")]


@pytest.fixture(params=MODELS, ids="-".join)
def model(request, tmp_path):
    runtime, kind = request.param
    folder = tmp_path / "checkpoint"
    make_checkpoint(folder, kind)
    if runtime != "transformers":
        open_runtime(runtime).write(folder, tmp_path / "bundle")
        folder = tmp_path / "bundle"
    return open_runtime(runtime).open_model(folder, num_threads=1)


def decode(model, requests, *, num_slots, end_ids=()):
    session = model.open_session(num_slots=num_slots)
    answers = [[] for _ in requests]
    logs = [[] for _ in requests]
    for item in decode_answers(session, requests, end_ids=end_ids):
        answers[item.request].append(item.token)
        logs[item.request].append(item.log_prob)
        assert item.is_last == (
            len(answers[item.request]) == requests[item.request].max_new_tokens
            or item.token in end_ids
        )
    assert session.slots == () and session.num_free == num_slots
    return answers, logs


@pytest.mark.parametrize("num_slots", [1, 2, 3, 8])
def test_an_answer_is_the_same_alone_together_and_admitted_late(num_slots, model):
    requests = [Request(*item) for item in zip(PROMPTS, LENGTHS, strict=True)]
    alone = [decode(model, [request], num_slots=1) for request in requests]
    answers, logs = decode(model, requests, num_slots=num_slots)
    assert answers == [tokens for ((tokens,), _) in alone]
    for found, (_, (expected,)) in zip(logs, alone, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert [len(answer) for answer in answers] == LENGTHS


def test_an_end_token_frees_the_slot(model):
    requests = [Request(prompt, 6) for prompt in PROMPTS]
    whole, _ = decode(model, requests, num_slots=2)
    end = whole[0][1]
    answers, _ = decode(model, requests, num_slots=2, end_ids=(end,))
    for found, expected in zip(answers, whole, strict=True):
        assert found == expected[: expected.index(end) + 1 if end in expected else None]


def test_rows_in_the_middle_leave_and_their_slots_are_used_again(model):
    session = model.open_session(num_slots=3)
    admitted = session.admit(PROMPTS[:3])
    assert admitted.slots == (0, 1, 2)
    tokens = admitted.logits.argmax(axis=-1).tolist()
    session.evict([1])
    assert session.slots == (0, 2) and session.num_free == 1
    left = session.step([tokens[0], tokens[2]])
    late = session.admit([PROMPTS[3]])
    assert late.slots == (1,) and session.slots == (0, 2, 1)
    chosen = [*left.argmax(axis=-1).tolist(), int(late.logits.argmax())]
    together = session.step(chosen)
    rows = [
        [*PROMPTS[0], tokens[0], chosen[0]],
        [*PROMPTS[2], tokens[2], chosen[1]],
        [*PROMPTS[3], chosen[2]],
    ]
    for found, row in zip(together, rows, strict=True):
        (expected,) = model.compute_logits([row], start=len(row) - 1)
        np.testing.assert_allclose(found, expected[0], atol=1e-3, rtol=1e-3)


def test_copies_of_a_prompt_are_rows_of_their_own(model):
    session = model.open_session(num_slots=4)
    admitted = session.admit(PROMPTS[:2], num_copies=2)
    assert admitted.slots == (0, 1, 2, 3)
    logits = session.step([5, 6, 7, 8])
    rows = [[*PROMPTS[index // 2], token] for index, token in enumerate([5, 6, 7, 8])]
    for found, row in zip(logits, rows, strict=True):
        (expected,) = model.compute_logits([row], start=len(row) - 1)
        np.testing.assert_allclose(found, expected[0], atol=1e-3, rtol=1e-3)


def test_wrong_use_is_refused(model):
    session = model.open_session(num_slots=2)
    with pytest.raises(ValueError, match="expected 1 to 2"):
        session.admit(PROMPTS[:3])
    with pytest.raises(ValueError, match="expected one each"):
        session.step([])
    session.admit(PROMPTS[:1])
    with pytest.raises(ValueError, match=r"slots \[1\] are free"):
        session.evict([1])


def count_tokens(torch_model):
    """Tokens computed so far, rows times length of each pass."""
    seen = []
    torch_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_a_finished_row_costs_nothing_more(moe):
    seen = count_tokens(moe)
    requests = [Request(PROMPTS[0], 2), Request(PROMPTS[1], 5), Request(PROMPTS[2], 3)]
    session = NumpySession(TorchSession(moe, num_slots=2))
    list(decode_answers(session, requests, end_ids=()))
    # Two prompts; one step of both; the third prompt takes the place of the first; two steps of
    # the second and third, which ends; one step of the second alone.
    assert seen == [(2, 5), (2, 1), (1, 1), (2, 1), (2, 1), (1, 1)]


def test_columns_without_tokens_are_cut_off(moe):
    session = TorchSession(moe, num_slots=2)
    session.admit([[5] * 40, [6, 7]])
    session.evict([0])
    for token in range(5, 15):
        session.step([token])
    session.admit([[8]])
    assert session._mask.shape == (2, 12)
    assert {layer.keys.shape[2] for layer in session._cache.layers} == {12}


def test_a_sliding_window_slides_for_late_rows_too():
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=6,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ).eval()
    rng = random.Random(0)
    rows = [[rng.randrange(50) for _ in range(length)] for length in (12, 3, 9)]
    session = TorchSession(model, num_slots=3)
    session.admit(rows[:2])
    for _ in range(3):
        tokens = [rng.randrange(50) for _ in session.slots]
        logits = session.step(tokens)
        for row, token in zip(rows, tokens, strict=False):
            row.append(token)
    session.admit(rows[2:])
    for _ in range(4):
        tokens = [rng.randrange(50) for _ in session.slots]
        logits = session.step(tokens)
        for row, token in zip(rows, tokens, strict=True):
            row.append(token)
    for row, found in zip(rows, logits, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([row])).logits[0, -1]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_more_questions_than_slots_get_the_answers_of_one_batch(tmp_path):
    torch_model = make_checkpoint(tmp_path)
    model = open_runtime("transformers").open_model(tmp_path, num_threads=1)
    few = GreedyAnswerer(model, chat=open_chat(tmp_path, model=torch_model), num_slots=2)
    questions = QUESTIONS * 2
    expected = open_answerer(tmp_path, num_threads=1).answer(questions, max_new_tokens=7)
    found = few.answer(questions, max_new_tokens=7)
    assert [item.text for item in found] == [item.text for item in expected]
    assert [item.num_tokens for item in found] == [item.num_tokens for item in expected]


@pytest.mark.parametrize("family", ["Qwen3-Next", "Gemma 3"])
def test_layers_of_every_kind_lose_and_join_rows(family, tmp_path):
    model = load_model(make_family(tmp_path / "model", name=family))
    whole = [[*PROMPTS[0], 7, 7, 7], [*PROMPTS[1], 8, 8, 8], [*PROMPTS[3], 9, 9]]
    with torch.no_grad():
        expected = [model(torch.tensor([ids]), use_cache=False).logits[0] for ids in whole]
    session = TorchSession(model, num_slots=3)
    session.admit(PROMPTS[:2])
    session.step([7, 8])
    session.evict([0])
    assert torch.allclose(session.step([8])[0], expected[1][-2], atol=1e-4)
    session.admit([PROMPTS[3]])
    found = session.step([8, 9])
    assert torch.allclose(found[0], expected[1][-1], atol=1e-4)
    assert torch.allclose(found[1], expected[2][-2], atol=1e-4)


def test_an_architecture_with_a_state_of_its_own_is_refused():
    config = MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32)
    with pytest.raises(CheckpointError, match="a 'mamba' keeps a recurrent state"):
        check_decodable(build_without_weights(config), place="model")
