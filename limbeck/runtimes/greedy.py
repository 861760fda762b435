"""Answering over any model that computes next-token logits.

Greedily, the most probable token is taken at each step, which is what `generate(do_sample=False)`
does where the generation config sets no penalties; penalties are left out, because they change what
a model was measured to answer. Drawn answers take each token by chance.
"""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Int
from typing_extensions import override

from limbeck.contracts.answerer import (
    Answer,
    Answerer,
    Prompt,
    PromptLike,
    Size,
    as_prompt,
    geometric_mean,
)
from limbeck.contracts.errors import PromptLengthError
from limbeck.contracts.parity import log_softmax
from limbeck.models.session import Session
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.chat import Chat, TextStream
from limbeck.runtimes.sampling import Sampler

NUM_SLOTS = 64
"""Prompts decoded at once; more wait until one of them has ended."""


@dataclass(frozen=True)
class Request:
    """A prompt as tokens, and how many may follow."""

    tokens: Sequence[int]
    max_new_tokens: int
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class GeneratedToken:
    """One more token of an answer."""

    request: int
    """The index of the request that it answers."""
    token: int
    log_prob: float
    is_last: bool


Tokens = tuple[Int[np.ndarray, " rows"], Float[np.ndarray, " rows"]]
"""One token a row, and its log-probability under the model."""
ChooseTokens = Callable[[Sequence[int], Float[np.ndarray, "rows vocab"]], Tokens]
"""The next token of each row, from the index of its request and its logits."""


def most_probable(
    logits: Float[np.ndarray, "rows vocab"],
) -> Tokens:
    """The most probable token of each row (the first of equals), and its log-probability."""
    tokens = logits.argmax(axis=-1)
    largest = logits[np.arange(len(logits)), tokens]
    return tokens, -np.log(np.exp(logits - largest[:, None]).sum(axis=-1))


def decode_answers(
    session: Session[np.ndarray],
    requests: Sequence[Request],
    *,
    end_ids: Collection[int],
    ends_after: Callable[[int, int], bool] = lambda request, token: False,
    choose: ChooseTokens = lambda _, logits: most_probable(logits),
) -> Iterator[GeneratedToken]:
    """The tokens of every answer, each as soon as it is known; the most probable ones by default.

    `ends_after` may end a request's answer after any token of it, and is called once for each.
    A row that ends leaves its slot at once, and the next request that waits takes it.
    """
    waiting = deque(index for index, item in enumerate(requests) if item.max_new_tokens > 0)
    request_of: dict[int, int] = {}
    latest: dict[int, int] = {}
    num_left = [item.max_new_tokens for item in requests]
    while waiting or session.slots:
        if waiting and session.num_free:
            joining = [waiting.popleft() for _ in range(min(len(waiting), session.num_free))]
            read, num_copies = _list_prompts([requests[index] for index in joining])
            admitted = session.admit(
                [item.tokens for item in read],
                images=[image for item in read for image in item.images],
                num_copies=num_copies,
            )
            slots, logits = admitted.slots, admitted.logits
            request_of |= dict(zip(slots, joining, strict=True))
        else:
            slots = session.slots
            logits = session.step([latest[slot] for slot in slots])
        ended = []
        chosen = choose([request_of[slot] for slot in slots], logits)
        for slot, token, log_prob in zip(slots, *chosen, strict=True):
            latest[slot] = int(token)
            num_left[request_of[slot]] -= 1
            request = request_of[slot]
            stops = ends_after(request, latest[slot])
            is_last = stops or latest[slot] in end_ids or not num_left[request]
            if is_last:
                ended.append(slot)
            yield GeneratedToken(request, latest[slot], float(log_prob), is_last)
        session.evict(ended)


def _list_prompts(joining: Sequence[Request]) -> tuple[list[Request], int]:
    """The prompts to read, and how many rows each is for: of samples of one prompt, one is read."""
    runs = [
        list(same)
        for _, same in itertools.groupby(joining, lambda item: (item.tokens, item.images))
    ]
    if len({len(same) for same in runs}) > 1:
        return list(joining), 1
    return [same[0] for same in runs], len(runs[0])


@final
class GreedyAnswerer(Answerer):
    """Answers token by token until the model ends its answer: the most probable, or drawn ones."""

    def __init__(self, model: LoadedModel, *, chat: Chat, num_slots: int = NUM_SLOTS) -> None:
        self.model = model
        self.chat = chat
        self._num_slots = num_slots

    @override
    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        decoded = self._decode(prompts, max_new_tokens=max_new_tokens)
        return self._collect(decoded, num_answers=len(prompts))

    @override
    def sample(
        self,
        prompts: Sequence[PromptLike],
        *,
        seeds: Sequence[int],
        temperature: float,
        max_new_tokens: int,
    ) -> list[Answer]:
        choose = Sampler(seeds, temperature=temperature)
        decoded = self._decode(prompts, max_new_tokens=max_new_tokens, choose=choose)
        return self._collect(decoded, num_answers=len(prompts))

    def _collect(self, decoded: Iterable[GeneratedToken], *, num_answers: int) -> list[Answer]:
        tokens: list[list[int]] = [[] for _ in range(num_answers)]
        logs: list[list[float]] = [[] for _ in range(num_answers)]
        for item in decoded:
            tokens[item.request].append(item.token)
            logs[item.request].append(item.log_prob)
        return [
            Answer(self.chat.read_answer(self._shown(row)), len(row), geometric_mean(row_logs))
            for row, row_logs in zip(tokens, logs, strict=True)
        ]

    @override
    def stream(self, prompt: PromptLike, *, max_new_tokens: int) -> Iterator[tuple[str, float]]:
        """Tokens that show nothing yet give ''.

        Joined the pieces are the text of `answer`, except where a model generates bytes that are
        no text.
        """
        text = TextStream(self.chat)
        for item in self._decode([prompt], max_new_tokens=max_new_tokens):
            piece = "".join(text.push(token) for token in self._shown([item.token]))
            yield piece + (text.finish() if item.is_last else ""), item.log_prob

    @override
    def score(self, prompt: PromptLike, options: Sequence[str]) -> list[float]:
        """The end of the answer counts as a token of it."""
        if not options:
            return []
        given = as_prompt(prompt)
        rendered = self.chat.render_options(given, options)
        rows = [self._check_length([*item.given, *item.answer[:-1]]) for item in rendered]
        images = given.images * len(rows)
        start = min(len(item.given) for item in rendered) - 1
        logits = self.model.compute_logits(rows, start=start, images=images)
        return [
            self._score(log_softmax(row[len(item.given) - 1 - start :]), answer=item.answer)
            for row, item in zip(logits, rendered, strict=True)
        ]

    def _score(self, logs: Float[np.ndarray, "tokens vocab"], *, answer: Sequence[int]) -> float:
        """Mean log-probability per token; the answer may end with any token that ends answers."""
        found = logs[np.arange(len(answer)), answer]
        if answer[-1] in self.chat.end_ids and len(self.chat.end_ids) > 1:
            found[-1] = np.logaddexp.reduce(logs[len(answer) - 1, list(self.chat.end_ids)])
        return float(found.mean())

    @override
    def count_answer_tokens(self, answer: str) -> int:
        (option,) = self.chat.render_options(as_prompt("?"), [answer])
        return len(option.answer)

    @override
    def size(self) -> Size:
        return self.model.size()

    @override
    def num_threads(self) -> int:
        return self.model.num_threads()

    def _decode(
        self,
        prompts: Sequence[PromptLike],
        *,
        max_new_tokens: int,
        choose: ChooseTokens = lambda _, logits: most_probable(logits),
    ) -> Iterator[GeneratedToken]:
        requests = []
        for prompt in map(as_prompt, prompts):
            tokens = self._render(prompt)
            room = self.model.max_tokens - len(tokens)
            requests.append(Request(tokens, min(max_new_tokens, room), prompt.images))
        session = self.model.open_session(num_slots=self._num_slots)
        return decode_answers(session, requests, end_ids=self.chat.end_ids, choose=choose)

    def _render(self, prompt: Prompt) -> list[int]:
        return self._check_length(self.chat.render(prompt))

    def _check_length(self, ids: list[int]) -> list[int]:
        if not 0 < len(ids) < self.model.max_tokens:
            raise PromptLengthError(
                f"a prompt of {len(ids)} tokens: expected 1 to {self.model.max_tokens - 1}, so "
                "that the model can read it and answer; shorten the question"
            )
        return ids

    def _shown(self, tokens: list[int]) -> list[int]:
        """The tokens of an answer without the one that ends it."""
        return tokens[:-1] if tokens and tokens[-1] in self.chat.end_ids else tokens
