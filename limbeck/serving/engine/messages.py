"""What goes between the server and the process that a model works in."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limbeck.contracts.answer_policy import Judgement
from limbeck.contracts.answerer import Message

FinishReason = Literal["stop", "length"]
AnswerStatus = Literal["answered", "unknown", "refused", "withheld", "emergency"]
"""`refused`: a rule lets no model answer it; `withheld`: a rule held an answer back."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the most probable one."""

    temperature: float = 0.0
    top_p: float = 1.0
    """Tokens are drawn from the likeliest ones that together have this probability."""
    top_k: int = 0
    """Only so many of the likeliest tokens may be drawn; 0: all."""
    seed: int = 0
    has_seed: bool = False
    """Whether the client chose the seed."""


Pieces = Literal["all", "first", "none"]
"""Where nobody reads along, an answer comes with its end: all of it (`none`), or what follows the
first piece, which somebody waits for."""


@dataclass(frozen=True)
class Generate:
    """A request for `num_choices` answers to one conversation."""

    id: int
    messages: tuple[Message, ...]
    max_new_tokens: int
    """0: as many as the model's context leaves."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    """Texts that end an answer, and are no part of it."""
    num_choices: int = 1
    num_top_log_probs: int = -1
    """So many of the likeliest tokens are listed at every place; -1: no log-probabilities."""
    images: tuple[Path, ...] = ()
    owner: str = ""
    """Whose request it is: what is kept of it serves this owner alone."""
    pieces: Pieces = "all"
    request_id: str = ""
    """Of the client's request; another server that is asked gets it."""
    traceparent: str = ""
    """As above (W3C Trace Context)."""


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this request any more."""

    id: int


@dataclass(frozen=True)
class Stop:
    """The process is to end."""


Command = Generate | Cancel | Stop


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    parameters: int
    weight_bytes: int
    max_tokens: int
    num_threads: int


@dataclass(frozen=True)
class TokenLogProb:
    """A token as text, and the logarithm of its probability."""

    text: str
    log_prob: float


@dataclass(frozen=True)
class ChosenToken:
    """A generated token, and the likeliest ones at its place."""

    chosen: TokenLogProb
    top: tuple[TokenLogProb, ...]


@dataclass(frozen=True)
class Piece:
    """More text of one answer; empty while a character, or what may be a stop text, is open."""

    id: int
    choice: int
    text: str
    tokens: tuple[ChosenToken, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The end of one answer."""

    id: int
    choice: int
    reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    confidence_ratio: float | None
    """Geometric mean of the probabilities of its tokens; None where they are not known."""
    judgement: Judgement | None
    """None: the model is not calibrated."""
    is_repeating: bool
    """Whether it was stopped because it repeated itself."""
    started: float = 0.0
    """When it got its row, by `time.monotonic`, which is one clock for all processes of a machine;
    0: not known."""
    queue_seconds: float = 0.0
    """Without a row; the engine fills it in."""
    decode_seconds: float = 0.0
    """From its first token to its last."""
    num_cached_tokens: int = 0
    """Of the prompt, those that had been read before, with another request."""
    status: AnswerStatus = "answered"
    """What another server has to say of it."""


@dataclass(frozen=True)
class Refused:
    """A request that the model cannot answer, such as a prompt that is too long."""

    id: int
    kind: Literal["prompt too long", "prompt", "model"]
    message: str


@dataclass(frozen=True)
class Broken:
    """The model cannot be opened."""

    message: str


Event = Ready | Piece | Finished | Refused | Broken


def pack(message: Sequence[Command] | Sequence[Event]) -> bytes:
    """What `Connection.recv` reads; `send` would build a pickler of its own for each message."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
