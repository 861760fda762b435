"""The loop over a session with slots: requests join and leave between two tokens.

Left out: processes and queues. This loop is driven by whoever calls `step`.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import final

import numpy as np

from limbeck.contracts.answer_policy import AnswerPolicy, repeats
from limbeck.contracts.answerer import Prompt, geometric_mean
from limbeck.contracts.errors import DataError, LimbeckError
from limbeck.contracts.parity import log_softmax
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.chat import Chat, TextStream
from limbeck.serving.engine.messages import (
    ChosenToken,
    Event,
    Finished,
    FinishReason,
    Generate,
    Piece,
    Refused,
    TokenLogProb,
)
from limbeck.serving.engine.sampling import choose_token, likeliest, make_generators
from limbeck.serving.engine.stop_texts import StopTexts


@dataclass(frozen=True)
class _Waiting:
    """A request whose prompt is rendered."""

    request: Generate
    tokens: list[int]


@dataclass
class _Row:
    """One answer that is being written."""

    request: Generate
    choice: int
    num_prompt_tokens: int
    num_left: int
    generator: np.random.Generator
    text: TextStream
    stops: StopTexts
    started: float
    num_cached_tokens: int = 0
    first_token: float = 0.0
    shown: str = ""
    has_begun: bool = False
    """Whether a piece of it has gone out."""
    kept: list[Piece] = field(default_factory=list)
    """What nobody reads before the end."""
    latest: int = 0
    log_probs: list[float] = field(default_factory=list)


@final
class DecodingLoop:
    """Decodes for as many answers at once as there are slots; others wait in order."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        chat: Chat,
        policy: AnswerPolicy,
        num_slots: int,
        max_prefix_bytes: int = 0,
    ) -> None:
        self._model = model
        self._chat = chat
        self._policy = policy
        self._session = model.open_session(num_slots=num_slots, max_prefix_bytes=max_prefix_bytes)
        self._waiting: deque[_Waiting] = deque()
        self._rows: dict[int, _Row] = {}
        self._end_ids = frozenset(chat.end_ids)

    @property
    def has_work(self) -> bool:
        """Whether a request waits or is being answered."""
        return bool(self._waiting or self._rows)

    def submit(self, request: Generate) -> list[Event]:
        """Takes a request; a refusal if the model cannot answer it."""
        try:
            tokens = self._chat.render(Prompt(request.messages, request.images))
        except DataError as error:
            return [Refused(request.id, "prompt", str(error))]
        except LimbeckError as error:
            return [Refused(request.id, "model", str(error))]
        most = self._model.max_tokens
        if len(tokens) >= most:
            # LiteLLM knows a prompt that is too long by OpenAI's words.
            message = (
                f"the prompt has {len(tokens)} tokens; this model's maximum context length is "
                f"{most} tokens: it reads at most {most - 1}"
            )
            return [Refused(request.id, "prompt too long", message)]
        if request.num_choices > self._session.num_slots:
            message = f"{request.num_choices} answers at once; at most {self._session.num_slots}"
            return [Refused(request.id, "prompt", message)]
        self._waiting.append(_Waiting(request, tokens))
        return []

    def cancel(self, id_: int) -> None:
        """Forgets a request; its rows are free for the next step."""
        self._waiting = deque(item for item in self._waiting if item.request.id != id_)
        self._evict([slot for slot, row in self._rows.items() if row.request.id == id_])

    def step(self) -> list[Event]:
        """One more token: of the requests that join, or else of all rows."""
        if joining := self._take_joining():
            return self._admit(joining)
        if not self._rows:
            return []
        slots = self._session.slots
        logits = self._session.step([self._rows[slot].latest for slot in slots])
        return self._extend(slots, logits)

    def _take_joining(self) -> list[_Waiting]:
        """The first requests that fit into the free slots; all want as many answers."""
        found: list[_Waiting] = []
        num_free = self._session.num_free
        while self._waiting:
            num_choices = self._waiting[0].request.num_choices
            if num_choices > num_free or (found and num_choices != found[0].request.num_choices):
                break
            found.append(self._waiting.popleft())
            num_free -= num_choices
        return found

    def _admit(self, joining: list[_Waiting]) -> list[Event]:
        started, num_choices = time.monotonic(), joining[0].request.num_choices
        try:
            admitted = self._session.admit(
                [item.tokens for item in joining],
                images=[image for item in joining for image in item.request.images],
                num_copies=num_choices,
                owners=[item.request.owner for item in joining],
            )
        except DataError as error:
            if len(joining) == 1:
                return [Refused(joining[0].request.id, "prompt", str(error))]
            return [event for item in joining for event in self._admit([item])]
        for place, item in enumerate(joining):
            slots = admitted.slots[place * num_choices : (place + 1) * num_choices]
            num_known = admitted.num_known[place * num_choices] if admitted.num_known else 0
            self._rows |= self._open_rows(item, slots, started=started, num_known=num_known)
        return self._extend(admitted.slots, admitted.logits)

    def _open_rows(
        self, item: _Waiting, slots: tuple[int, ...], *, started: float, num_known: int
    ) -> dict[int, _Row]:
        request, num_prompt_tokens = item.request, len(item.tokens)
        room = self._model.max_tokens - num_prompt_tokens
        generators = make_generators(request.sampling.seed, num_choices=request.num_choices)
        return {
            slot: _Row(
                request=request,
                choice=choice,
                num_prompt_tokens=num_prompt_tokens,
                num_left=min(request.max_new_tokens or room, room),
                generator=generators[choice],
                text=TextStream(self._chat),
                stops=StopTexts(request.stop),
                started=started,
                num_cached_tokens=num_known,
            )
            for choice, slot in enumerate(slots)
        }

    def _extend(self, slots: tuple[int, ...], logits: np.ndarray) -> list[Event]:
        events: list[Event] = []
        ended = []
        for slot, log_probs in zip(slots, log_softmax(logits), strict=True):
            row = self._rows[slot]
            found = self._add_token(row, log_probs)
            events += found
            if found and isinstance(found[-1], Finished):
                ended.append(slot)
        self._evict(ended)
        return events

    def _add_token(self, row: _Row, log_probs: np.ndarray) -> list[Event]:
        request = row.request
        uniform = row.generator.random() if request.sampling.temperature else 0.0
        token = choose_token(log_probs, sampling=request.sampling, uniform=uniform)
        row.latest = token
        row.log_probs.append(float(log_probs[token]))
        row.first_token = row.first_token or time.monotonic()
        row.num_left -= 1
        is_end = token in self._end_ids
        piece = "" if is_end else row.stops.push(row.text.push(token))
        row.shown += piece
        is_repeating = bool(piece) and repeats(row.shown)
        reason: FinishReason | None = None
        if is_end or row.stops.has_ended or is_repeating:
            reason = "stop"
        elif not row.num_left:
            reason = "length"
        if reason and not row.stops.has_ended:
            rest = row.stops.push(row.text.finish())
            rest += "" if row.stops.has_ended else row.stops.finish()
            piece, row.shown = piece + rest, row.shown + rest
        tokens = () if is_end else self._describe(request, token, log_probs)
        if piece or tokens:
            row.kept.append(Piece(request.id, row.choice, piece, tokens))
        is_first = request.pieces == "first" and not row.has_begun
        goes_out = request.pieces == "all" or is_first or reason is not None
        events: list[Event] = _take_kept(row) if goes_out else []
        if reason is not None:
            events.append(self._finish(row, reason=reason, is_repeating=is_repeating))
        return events

    def _describe(
        self, request: Generate, token: int, log_probs: np.ndarray
    ) -> tuple[ChosenToken, ...]:
        if request.num_top_log_probs < 0:
            return ()
        count = request.num_top_log_probs
        top = likeliest(log_probs, count=count).tolist() if count else []
        named = tuple(self._name(item, log_probs) for item in top)
        return (ChosenToken(self._name(token, log_probs), named),)

    def _name(self, token: int, log_probs: np.ndarray) -> TokenLogProb:
        return TokenLogProb(self._chat.decode([int(token)]), float(log_probs[token]))

    def _finish(self, row: _Row, *, reason: FinishReason, is_repeating: bool) -> Finished:
        ratio = geometric_mean(row.log_probs)
        question = row.request.messages[-1].content
        return Finished(
            row.request.id,
            row.choice,
            reason,
            row.num_prompt_tokens,
            len(row.log_probs),
            ratio,
            self._policy.judge(question, confidence_ratio=ratio),
            is_repeating,
            row.started,
            decode_seconds=time.monotonic() - row.first_token,
            num_cached_tokens=row.num_cached_tokens,
        )

    def _evict(self, slots: list[int]) -> None:
        for slot in slots:
            del self._rows[slot]
        self._session.evict(slots)


def _take_kept(row: _Row) -> list[Event]:
    """What was kept of an answer, as one piece; nothing where nothing was."""
    if not row.kept:
        return []
    row.has_begun = True
    kept, row.kept = row.kept, []
    text, tokens = "".join(item.text for item in kept), [item.tokens for item in kept]
    return [Piece(row.request.id, row.choice, text, tuple(chain.from_iterable(tokens)))]
