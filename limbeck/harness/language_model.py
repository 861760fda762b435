"""lm-evaluation-harness's interface to a model, over what every runtime of Limbeck's offers.

Texts become tokens as in lm-eval's own `hf` model, so that numbers can be laid beside published
ones, with two exceptions: a rendered conversation gets no special token that its template does not
write, and a text whose probability is computed whole starts with one start token, not two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import DEFAULT_MAX_LENGTH, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from typing_extensions import override

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.parity import log_softmax
from limbeck.env.progress import track
from limbeck.harness.model_text import ModelText
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.greedy import Request, decode_answers

Prompts = Literal["chat", "plain"]
"""Whether the model's chat template renders what a task asks."""
MAX_LOGIT_BYTES = 256 << 20
"""Of the logits of one batch, beyond its first row."""
IGNORED_SETTINGS = frozenset({"do_sample", "temperature", "top_k", "top_p", "until"})
"""Of a task's `generation_kwargs`, where nothing is sampled."""


@dataclass(frozen=True)
class Scored:
    """One continuation: the tokens to read, and how many of the last predictions count."""

    row: tuple[int, ...]
    continuation: Sequence[int]

    @property
    def start(self) -> int:
        """The first place whose prediction counts."""
        return len(self.row) - len(self.continuation)


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to generate."""

    request: Request
    stops: tuple[str, ...]
    """Texts that end it, and are no part of it."""
    end_ids: frozenset[int]
    """Special tokens that end it because a task names them."""


@final
class HarnessModel(TemplateLM):
    """A checkpoint or a bundle, as lm-eval calls it."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        text: ModelText,
        name: str,
        prompts: Prompts,
        batch_size: int,
    ) -> None:
        """Raises: CheckpointError: conversations are asked for, and there is no template."""
        super().__init__()
        if prompts == "chat" and text.template is None:
            raise CheckpointError(
                f"{name}: has no chat template, as base models have none; evaluate it with "
                "--no-chat, which asks every task as plain text"
            )
        self._model = model
        self._text = text
        self._name = name
        self._prompts: Prompts = prompts
        self._batch_size = batch_size
        self.num_truncated = 0
        """Requests so long that the start of their context was cut off."""

    @property
    def max_length(self) -> int:
        """Longest sequence; lm-eval's default for a model without a limit."""
        longest = self._model.max_tokens
        return longest if longest < 1 << 30 else DEFAULT_MAX_LENGTH

    @property
    @override
    def tokenizer_name(self) -> str:
        return self._name

    @property
    @override
    def eot_token_id(self) -> int:
        return self._text.end_ids[0]

    @property
    @override
    def prefix_token_id(self) -> int:
        return self._text.prefix_id

    @override
    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        if add_special_tokens is None:
            add_special_tokens = self._prompts == "plain" and not string.startswith(
                self._text.prefix
            )
        return (self._text.encode_whole if add_special_tokens else self._text.encode)(string)

    @override
    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text; without a generation prompt its last turn stays open."""
        assert self._text.template is not None, "refused by the constructor"
        messages = [_as_message(item) for item in chat_history]
        if add_generation_prompt:
            return self._text.template.render(messages)
        turn = self._text.template.render_turn(messages[:-1], answer=messages[-1].content)
        return turn.prompt + turn.opening + turn.answer

    @override
    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of each continuation, and whether it is what comes greedily.

        Raises:
            DataError: a continuation is empty, or longer than the model reads.
        """
        for request in requests:
            context, continuation = request.args[0], request.args[-1]
            if not context and not self._text.encode(continuation):
                raise DataError(
                    f"{_describe(request)} scores an empty text; check the task's doc_to_choice "
                    "and doc_to_target"
                )
        return super().loglikelihood(requests, disable_tqdm=True)

    @override
    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """As `loglikelihood`; rows that differ in their last token alone are computed once."""
        scored = [self._cut(context, continuation) for _, context, continuation in requests]
        places: dict[tuple[int, ...], list[int]] = {}
        for place, item in enumerate(scored):
            places.setdefault(item.row, []).append(place)
        starts = {row: min(scored[place].start for place in found) for row, found in places.items()}
        results: list[tuple[float, bool]] = [(0.0, False)] * len(scored)
        with track(f"{self._name}: score", total=len(scored), unit="continuation") as advance:
            for batch in self._make_batches(starts):
                start = min(starts[row] for row in batch)
                logits = self._model.compute_logits(batch, start=start)
                for row, kept in zip(batch, logits, strict=True):
                    logs = log_softmax(kept[starts[row] - start :])
                    for place in places[row]:
                        results[place] = _score(logs, continuation=scored[place].continuation)
                    advance(len(places[row]))
        return results

    def _cut(self, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        """What is read to score a continuation: too long a context loses its start."""
        if not 0 < len(continuation) <= self.max_length:
            raise DataError(
                f"{self._name}: a continuation of {len(continuation)} tokens is to be scored: "
                f"expected 1 to {self.max_length}, what the model reads; check the task's "
                "doc_to_choice and doc_to_target"
            )
        whole = (*context, *continuation)
        kept = whole[-(self.max_length + 1) :]
        self.num_truncated += len(kept) < len(whole)
        return Scored(kept[:-1], continuation)

    def _make_batches(self, starts: dict[tuple[int, ...], int]) -> Iterator[list[tuple[int, ...]]]:
        """Rows of like length together, the longest first, with few logits to keep."""
        batch: list[tuple[int, ...]] = []
        for row in sorted(starts, key=lambda row: (-starts[row], -len(row), row)):
            rows = [*batch, row]
            start = min(starts[item] for item in rows)
            num_bytes = 4 * self._text.num_tokens * sum(len(item) - start for item in rows)
            if batch and (len(batch) >= self._batch_size or num_bytes > MAX_LOGIT_BYTES):
                yield batch
                rows = [row]
            batch = rows
        if batch:
            yield batch

    @override
    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-probability of each whole text, in windows as long as the model reads."""
        windows: list[tuple[tuple[str, str], list[int], list[int]]] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            (string,) = request.args
            tokens = self._text.encode(string)
            tokens = tokens[1:] if tokens[:1] == [self.prefix_token_id] else tokens
            for window in get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                context, continuation = make_disjoint_window(window)
                windows.append((("", string), context, continuation))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, (log, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[owner] += log
        return sums

    @override
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Each greedy answer up to its end or to the first text that stops it.

        Raises:
            DataError: a task samples, or leaves no room for the question.
        """
        generations = [self._plan(request) for request in requests]
        # Neighbours of like length are padded least.
        order = sorted(
            range(len(requests)), key=lambda index: -len(generations[index].request.tokens)
        )
        tokens: list[list[int]] = [[] for _ in requests]

        def ends_after(place: int, token: int) -> bool:
            index = order[place]
            tokens[index].append(token)
            generation = generations[index]
            if token in generation.end_ids:
                return True
            return (
                bool(generation.stops)
                and _find_stop(self._text.decode(tokens[index]), generation.stops) is not None
            )

        session = self._model.open_session(num_slots=self._batch_size)
        decoded = decode_answers(
            session,
            [generations[index].request for index in order],
            end_ids=self._text.end_ids,
            ends_after=ends_after,
        )
        with track(f"{self._name}: answer", total=len(requests), unit="question") as advance:
            for item in decoded:
                advance(int(item.is_last))
        return [
            self._finish(generation, ids=ids)
            for generation, ids in zip(generations, tokens, strict=True)
        ]

    def _plan(self, request: Instance) -> GenerationRequest:
        context, settings = request.args[0], request.args[-1]
        wanted: JsonMapping = {**normalize_gen_kwargs(settings)}
        others = sorted(settings.keys() - IGNORED_SETTINGS - _LENGTH_SETTINGS)
        samples = wanted.get("do_sample") and wanted.get("temperature") != 0
        if samples or others:
            raise DataError(
                f"{_describe(request)} has generation_kwargs {settings!r}: a model is asked "
                "greedily, so that its answers repeat; set do_sample: false"
                + (f" and leave out {', '.join(others)}" if others else "")
            )
        max_new_tokens = wanted["max_gen_toks"]
        room = self.max_length - max_new_tokens
        if room <= 0:
            raise DataError(
                f"{_describe(request)} generates {max_new_tokens} tokens, and {self._name} reads "
                f"{self.max_length} with the question; set max_gen_toks in the task's "
                "generation_kwargs to fewer"
            )
        tokens = self.tok_encode(context)
        self.num_truncated += len(tokens) > room
        stops = tuple(filter(None, wanted["until"]))
        ends = frozenset(
            self._text.special_ids[stop] for stop in stops if stop in self._text.special_ids
        )
        texts = tuple(stop for stop in stops if stop not in self._text.special_ids)
        return GenerationRequest(Request(tokens[-room:], max_new_tokens), texts, ends)

    def _finish(self, generation: GenerationRequest, *, ids: Sequence[int]) -> str:
        ends = {*self._text.end_ids, *generation.end_ids}
        text = self._text.decode(ids[:-1] if ids and ids[-1] in ends else ids)
        return text[: _find_stop(text, generation.stops)]


_LENGTH_SETTINGS = frozenset(
    {"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
)


def _score(
    logs: Float[np.ndarray, "places vocab"], *, continuation: Sequence[int]
) -> tuple[float, bool]:
    """The sum over the last places, one for each token, and whether each token is the likeliest."""
    logs = logs[len(logs) - len(continuation) :]
    chosen = logs[np.arange(len(continuation)), list(continuation)]
    is_greedy = bool((logs.argmax(axis=-1) == np.array(continuation)).all())
    return float(chosen.sum(dtype=np.float64)), is_greedy


def _find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the texts that stop an answer begins; None where none does."""
    return min((text.index(stop) for stop in stops if stop in text), default=None)


def _as_message(item: dict[str, str]) -> Message:
    role = item["role"]
    if role not in ("system", "user", "assistant"):
        raise DataError(f"a task has a turn of role {role!r}: expected system, user or assistant")
    return Message(role, item["content"])


def _describe(request: Instance) -> str:
    return f"task {request.task_name!r}, document {request.doc_id}"
