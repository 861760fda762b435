"""Drawn answers: by the distribution, and each from its seed alone."""

import numpy as np
import pytest
import torch

from limbeck.models import generation
from limbeck.runtimes import open_answerer, open_runtime
from limbeck.runtimes.sampling import draw_tokens
from tests.support.tiny_checkpoints import QUESTIONS, make_checkpoint


def test_tokens_come_as_often_as_they_are_likely():
    logits = np.log(np.array([[0.1, 0.0, 0.6, 0.3]]) + 1e-300).repeat(1000, axis=0)
    uniform = (np.arange(1000) + 0.5) / 1000
    for temperature in (1.0, 0.5, 2.0):
        found = draw_tokens(logits, uniform=uniform, temperature=temperature)
        shares = np.array([0.1, 0.0, 0.6, 0.3]) ** (1 / temperature)
        counts = np.bincount(found, minlength=4)
        np.testing.assert_allclose(counts / 1000, shares / shares.sum(), atol=2e-3)
        assert counts[1] == 0


def test_the_greatest_and_the_least_number_draw_a_token():
    logits = np.array([[-np.inf, 0.0, 1.0, -np.inf]]).repeat(2, axis=0)
    found = draw_tokens(logits, uniform=np.array([0.0, np.nextafter(1, 0)]), temperature=1.0)
    assert found.tolist() == [1, 2]


def test_the_twin_in_torch_draws_the_same():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 50)).astype(np.float32) * 3
    uniform = rng.random(200)
    expected, _ = generation.draw_tokens(
        torch.tensor(logits), uniform=torch.tensor(uniform), temperature=0.7, top_p=1.0
    )
    assert draw_tokens(logits, uniform=uniform, temperature=0.7).tolist() == expected.tolist()


@pytest.mark.parametrize("runtime", ["transformers", "onnx", "gguf"])
def test_an_answer_depends_on_its_seed_and_on_no_other_prompt(runtime, tmp_path):
    folder = tmp_path / "checkpoint"
    make_checkpoint(folder, "llama")
    if runtime != "transformers":
        open_runtime(runtime).write(folder, tmp_path / "bundle")
        folder = tmp_path / "bundle"
    answerer = open_answerer(folder, num_threads=1)

    def draw(prompts, seeds, temperature=1.0):
        found = answerer.sample(prompts, seeds=seeds, temperature=temperature, max_new_tokens=6)
        return [item.text for item in found]

    question = QUESTIONS[0]
    texts = draw([question] * 8, list(range(8)))
    assert len(set(texts)) > 1
    assert draw([QUESTIONS[1], question, question], [9, 3, 3])[1:] == [texts[3], texts[3]]
    # Nearly without chance they are the greedy ones, with their confidences.
    (greedy,) = answerer.answer([question], max_new_tokens=6)
    (cold,) = answerer.sample([question], seeds=[1], temperature=1e-6, max_new_tokens=6)
    assert (cold.text, cold.num_tokens) == (greedy.text, greedy.num_tokens)
    assert cold.confidence_ratio == pytest.approx(greedy.confidence_ratio, rel=1e-5)
