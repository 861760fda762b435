"""Greedy answering over any model that computes next-token logits.

A runtime supplies `Steps`; `GreedyAnswerer` is the only loop. It takes the most probable token at
each step, which is what `generate(do_sample=False)` does where the generation config sets no
penalties; penalties are left out, because they change what a model was measured to say.
"""

import abc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from limbeck.contracts.answerer import (
    Answer,
    Answerer,
    Prompt,
    PromptLike,
    Size,
    as_prompt,
    geometric_mean,
)
from limbeck.contracts.errors import DataError
from limbeck.contracts.parity import log_softmax
from limbeck.runtimes.chat import Chat, TextStream


class Steps(abc.ABC):
    """A loaded model, one step of a batch at a time."""

    max_tokens: int
    """Longest sequence the model reads."""

    @abc.abstractmethod
    def start(
        self, prompts: Sequence[Sequence[int]], images: Sequence[Path] = ()
    ) -> tuple[Float[np.ndarray, "batch vocab"], Any]:
        """Logits after each prompt, and the state that `advance` goes on from.

        `images` are those of all prompts, in reading order.
        """

    @abc.abstractmethod
    def advance(
        self, tokens: Int[np.ndarray, " batch"], state: Any
    ) -> Float[np.ndarray, "batch vocab"]:
        """Logits after one more token of each row; changes the state."""

    @abc.abstractmethod
    def compute(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Logits at every position of each row from `start` on, without a cache."""

    @abc.abstractmethod
    def size(self) -> Size:
        """Counts and bytes of the loaded model."""

    @abc.abstractmethod
    def num_threads(self) -> int:
        """CPU threads in use."""


class GreedyAnswerer(Answerer):
    """Answers by taking the most probable token until the model ends its answer."""

    def __init__(self, steps: Steps, *, chat: Chat) -> None:
        self._steps = steps
        self._chat = chat

    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        """One answer for each prompt, computed as a batch."""
        if not prompts:
            return []
        given = [as_prompt(prompt) for prompt in prompts]
        images = [image for prompt in given for image in prompt.images]
        rows = [self._render(prompt) for prompt in given]
        room = self._steps.max_tokens - max(map(len, rows))
        tokens: list[list[int]] = [[] for _ in rows]
        logs: list[list[float]] = [[] for _ in rows]
        open_rows = set(range(len(rows)))
        logits, state = self._steps.start(rows, images)
        for step in range(num_steps := min(max_new_tokens, room)):
            best, best_logs = take_best(logits)
            for row in sorted(open_rows):
                tokens[row].append(int(best[row]))
                logs[row].append(float(best_logs[row]))
                if best[row] in self._chat.end_ids:
                    open_rows.remove(row)
            if not open_rows or step == num_steps - 1:
                break
            logits = self._steps.advance(best, state)
        return [self._finish(*row) for row in zip(tokens, logs, strict=True)]

    def stream(self, prompt: PromptLike, *, max_new_tokens: int) -> Iterator[tuple[str, float]]:
        """Pieces of one answer as they come; tokens that show nothing yet give ''.

        Joined they are the text of `answer`, except where a model says bytes that are no text.
        """
        given = as_prompt(prompt)
        ids = self._render(given)
        num_steps = min(max_new_tokens, self._steps.max_tokens - len(ids))
        text = TextStream(self._chat)
        logits, state = self._steps.start([ids], given.images)
        for step in range(num_steps):
            best, logs = take_best(logits)
            is_last = step == num_steps - 1 or int(best[0]) in self._chat.end_ids
            piece = "" if int(best[0]) in self._chat.end_ids else text.push(int(best[0]))
            yield piece + (text.finish() if is_last else ""), float(logs[0])
            if is_last:
                return
            logits = self._steps.advance(best, state)

    def score(self, prompt: PromptLike, options: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each option as the answer, its end included."""
        if not options:
            return []
        given = as_prompt(prompt)
        ids = self._render(given)
        end = self._chat.end_ids[0]
        answers = [[*self._chat.encode(option), end] for option in options]
        rows = [self._check([*ids, *answer[:-1]]) for answer in answers]
        images = given.images * len(rows)
        logits = self._steps.compute(rows, start=len(ids) - 1, images=images)
        return [
            float(log_softmax(row)[np.arange(len(answer)), answer].mean())
            for row, answer in zip(logits, answers, strict=True)
        ]

    def size(self) -> Size:
        """Counts and bytes of the loaded model."""
        return self._steps.size()

    def num_threads(self) -> int:
        """CPU threads in use."""
        return self._steps.num_threads()

    def _render(self, prompt: Prompt) -> list[int]:
        return self._check(self._chat.render(prompt))

    def _check(self, ids: list[int]) -> list[int]:
        if not 0 < len(ids) < self._steps.max_tokens:
            raise DataError(
                f"a prompt of {len(ids)} tokens: expected 1 to {self._steps.max_tokens - 1}, so "
                "that the model can read it and answer; shorten the question"
            )
        return ids

    def _finish(self, tokens: list[int], logs: list[float]) -> Answer:
        shown = tokens[:-1] if tokens and tokens[-1] in self._chat.end_ids else tokens
        return Answer(self._chat.decode(shown), len(tokens), geometric_mean(logs))


def take_best(
    logits: Float[np.ndarray, "batch vocab"],
) -> tuple[Int[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """The most probable token of each row (the first of equals), and its log-probability."""
    best = logits.argmax(axis=-1)
    top = logits[np.arange(len(logits)), best]
    return best, -np.log(np.exp(logits - top[:, None]).sum(axis=-1))
