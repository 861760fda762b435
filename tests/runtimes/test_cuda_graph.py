"""A cache of a fixed size says what the growing one says, and its step is one program."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.contracts.errors import DataError
from limbeck.runtimes.cuda_graph import StaticSteps
from limbeck.runtimes.transformers import open_steps
from tests.support.tiny_checkpoints import make_checkpoint

PROMPTS = [[5, 9, 7, 11, 6], [8, 4], [10]]
COMPILE = """
import sys, torch
from limbeck.runtimes.cuda_graph import StaticSteps
from limbeck.runtimes.transformers import open_steps
seen = []
def prepare(step):
    def backend(graph, inputs):
        seen.append(graph)
        return graph
    return torch.compile(step, backend=backend, fullgraph=True)
def say(**settings):
    steps = StaticSteps(open_steps(sys.argv[1], num_threads=1), device="cpu", capacity_tokens=32,
                        **settings)
    tokens = []
    for _ in range(2):
        logits, state = steps.start([[5, 9, 7, 11, 6], [8, 4]])
        for _ in range(6):
            tokens.append(logits.argmax(axis=-1).tolist())
            logits = steps.advance(logits.argmax(axis=-1), state)
    return tokens
from pathlib import Path
sys.argv[1] = Path(sys.argv[1])
assert say() == say(prepare=prepare)
assert len(seen) == 1, f"compiled {len(seen)} times"
"""


def say(steps, prompts, *, num_tokens) -> tuple[list[list[int]], np.ndarray]:
    """Greedy tokens of each step, and the last logits."""
    logits, state = steps.start(prompts)
    tokens = []
    for _ in range(num_tokens):
        tokens.append(logits.argmax(axis=-1).tolist())
        logits = steps.advance(logits.argmax(axis=-1), state)
    return tokens, logits


@pytest.mark.parametrize("number_format", ["float32", "int8"])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "moe"])
def test_says_what_the_growing_cache_says(kind, number_format, tmp_path):
    make_checkpoint(tmp_path, kind, number_format)
    growing = open_steps(tmp_path, num_threads=1)
    fixed = StaticSteps(open_steps(tmp_path, num_threads=1), device="cpu", capacity_tokens=32)
    # The second round finds the first one's tokens in the cache, and must not see them.
    for prompts in (PROMPTS, PROMPTS[::-1], PROMPTS[:1]):
        expected, last = say(growing, prompts, num_tokens=8)
        found, logits = say(fixed, prompts, num_tokens=8)
        assert found == expected
        np.testing.assert_allclose(logits, last, atol=1e-4, rtol=1e-3)


def test_scores_and_size_are_the_models(tmp_path):
    make_checkpoint(tmp_path, "moe")
    growing = open_steps(tmp_path, num_threads=1)
    fixed = StaticSteps(growing, device="cpu", capacity_tokens=32)
    for left, right in zip(
        growing.compute(PROMPTS, start=0), fixed.compute(PROMPTS, start=0), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert fixed.size() == growing.size() and fixed.num_threads() == 1
    assert fixed.max_tokens == 32


def test_more_tokens_than_there_is_room_for_are_refused(tmp_path):
    make_checkpoint(tmp_path, "moe")
    steps = StaticSteps(open_steps(tmp_path, num_threads=1), device="cpu", capacity_tokens=6)
    with pytest.raises(DataError, match="7 tokens: expected at most 6"):
        say(steps, PROMPTS, num_tokens=2)
    with pytest.raises(DataError, match="raise capacity_tokens"):
        steps.start([list(range(7))])


def test_a_step_is_one_graph_that_serves_every_token(tmp_path):
    # In a process of its own: the checks of shapes that the tests add cannot be traced.
    make_checkpoint(tmp_path, "moe")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


CAPTURED = """
import sys
from pathlib import Path

import numpy as np
from tests.runtimes.test_cuda_graph import PROMPTS, say
from limbeck.runtimes.cuda_graph import StaticSteps, capture
from limbeck.runtimes.transformers import open_steps
folder = Path(sys.argv[1])
expected, last = say(open_steps(folder, num_threads=1), PROMPTS, num_tokens=8)
steps = StaticSteps(
    open_steps(folder, num_threads=1), device="cuda", capacity_tokens=32, prepare=capture
)
for _ in range(2):
    found, logits = say(steps, PROMPTS, num_tokens=8)
    assert found == expected
    np.testing.assert_allclose(logits, last, atol=1e-3, rtol=1e-2)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["qwen3", "moe"])
def test_a_captured_step_on_a_gpu_says_the_same(kind, tmp_path):
    make_checkpoint(tmp_path, kind)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CAPTURED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
