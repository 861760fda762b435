"""The objects of OpenAI's protocol that an answer becomes: choices, counts, events of a stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from limbeck.serving.engine.messages import ChosenToken, TokenLogProb
from limbeck.serving.service import AnswerText, End, Route


@dataclass
class ChatChoice:
    """One answer so far."""

    text: list[str] = field(default_factory=list)
    tokens: list[ChosenToken] = field(default_factory=list)
    end: End | None = None


def add_event(choices: Sequence[ChatChoice], event: AnswerText | End) -> None:
    """Adds an event to the choice that it belongs to."""
    choice = choices[event.choice]
    if isinstance(event, End):
        choice.end = event
    else:
        choice.text.append(event.text)
        choice.tokens += event.tokens


def describe_choice(index: int, choice: ChatChoice) -> dict[str, Any]:
    """A choice, as an answer holds it."""
    assert choice.end is not None
    return {
        "index": index,
        "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
        "logprobs": describe_log_probs(choice.tokens),
        "finish_reason": choice.end.reason,
    }


def describe_log_probs(tokens: Sequence[ChosenToken]) -> dict[str, Any] | None:
    """The tokens with their log-probabilities; None where none are wanted."""
    if not tokens:
        return None

    def name(item: TokenLogProb) -> dict[str, Any]:
        return {"token": item.text, "logprob": item.log_prob, "bytes": list(item.text.encode())}

    content = [
        {**name(item.chosen), "top_logprobs": [name(other) for other in item.top]}
        for item in tokens
    ]
    return {"content": content, "refusal": None}


def count_usage(ends: Sequence[End]) -> dict[str, Any]:
    """The tokens of all choices; the prompt counts once."""
    read = max((end.num_prompt_tokens for end in ends), default=0)
    written = sum(end.num_tokens for end in ends)
    cached = max((end.num_cached_tokens for end in ends), default=0)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def describe_route(route: Route, ends: Sequence[End]) -> dict[str, Any]:
    """What the service says of itself: the field `limbeck`."""
    ratios = [end.confidence_ratio for end in ends if end.confidence_ratio is not None]
    statuses = [end.status for end in ends]
    return {
        "tier": route.tier or None,
        "route_reason": route.reason,
        "model_key": route.model_key or None,
        "role": route.label or None,
        "source": route.source or None,
        "status": next((item for item in statuses if item != "answered"), "answered"),
        "confidence": min(ratios) if ratios else None,
        "machine_made": True,
        **({"failed_tiers": dict(route.failures)} if route.failures else {}),
    }


def make_headers(route: Route) -> list[tuple[bytes, bytes]]:
    """The same for those who read no body."""
    found = [
        (b"x-limbeck-route", route.reason.encode()),
        (b"x-limbeck-machine-made", b"true"),
    ]
    if route.tier:
        found += [
            (b"x-limbeck-tier", route.tier.encode()),
            (b"x-limbeck-model-key", route.model_key.encode()),
        ]
    return found


def write_json(content: object) -> bytes:
    """An answer as one object."""
    return to_json(content, inf_nan_mode="null")


def write_event(content: object) -> bytes:
    """An event of a stream."""
    return b"data: " + write_json(content) + b"\n\n"
