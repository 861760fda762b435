"""Requests as OpenAI's chat completions have them; an unknown key is refused, as there."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from limbeck.contracts.answerer import Message
from limbeck.serving.api.unsupported import (
    NoBias,
    NoChoice,
    NoEffort,
    NoItems,
    NoPenalty,
    NoStore,
    Nothing,
    OneServiceTier,
    TextAlone,
    TextForm,
)
from limbeck.serving.engine.messages import Generate, Sampling
from limbeck.serving.service import draw_seed

MAX_CHOICES = 16
MAX_TOP_LOG_PROBS = 20
MAX_STOPS = 16
MAX_SEED = 2**63 - 1
DATA_URL = "data:image/"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Body):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Body):
    """An image, inside the request."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Body):
    """A part of a message that is an image."""

    type: Literal["image_url"]
    image_url: ImageUrl


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(min_length=1)]
    name: str | None = None
    """Who speaks; no model reads it."""
    # What an answer's message holds besides, when a client sends it back as it came.
    refusal: Nothing = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: NoItems | None = None
    annotations: list[Any] | None = None
    """Places in the text where sources stand, which no model reads."""

    def text(self) -> str:
        """Its text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    def image_urls(self) -> list[str]:
        """Its images, in order."""
        parts = [] if isinstance(self.content, str) else self.content
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class StreamOptions(_Body):
    """What a stream holds besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False
    """vLLM's, which load generators send; the counts come once all the same, at the end."""


class ResponseFormat(_Body):
    """Only plain text is written."""

    type: TextForm


class Extension(_Body):
    """What OpenAI's protocol has no field for."""

    show_unsure: bool = False
    """Show the draft where the model is not sure of it."""


class ChatRequest(_Body):
    """`POST /v1/chat/completions`."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_tokens: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """OpenAI's default is 1; here it is 0, the model's best answer."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOG_PROBS)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    limbeck: Extension | None = None
    store: NoStore | None = None
    frequency_penalty: NoPenalty | None = None
    presence_penalty: NoPenalty | None = None
    response_format: ResponseFormat | None = None
    logit_bias: NoBias | None = None
    modalities: TextAlone | None = None
    service_tier: OneServiceTier | None = None
    tools: NoItems | None = None
    tool_choice: NoChoice | None = None
    parallel_tool_calls: bool | None = None
    """Of tools, of which there are none."""
    functions: NoItems | None = None
    function_call: NoChoice | None = None
    reasoning_effort: NoEffort | None = None
    verbosity: Nothing = None
    prediction: Nothing = None
    audio: Nothing = None
    web_search_options: Nothing = None
    prompt_cache_retention: Nothing = None

    @model_validator(mode="after")
    def _check_whole(self) -> "ChatRequest":
        if self.messages[-1].role != "user":
            raise ValueError(
                f"messages: the last one is the {self.messages[-1].role}'s, expected the user's"
            )
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError(
                "max_tokens and max_completion_tokens are one setting; give one of them"
            )
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def conversation(self) -> tuple[Message, ...]:
        """The turns as a chat template reads them."""
        return tuple(
            Message("system" if item.role == "developer" else item.role, item.text())
            for item in self.messages
        )

    def sticky(self, *, of: str) -> str:
        """What stays the same in all turns of a conversation: the user, or else how it began."""
        begin = [item.text() for item in self.messages[: self._place_of_first_question() + 1]]
        return "\0".join([of, self.user] if self.user else [of, *begin])

    def _place_of_first_question(self) -> int:
        return next(place for place, item in enumerate(self.messages) if item.role == "user")

    def _seed(self) -> int:
        if self.seed is not None:
            return self.seed % (MAX_SEED + 1)
        return draw_seed() if self.temperature else 0  # the likeliest token needs no chance

    def generate(
        self,
        messages: tuple[Message, ...],
        *,
        images: tuple[Path, ...] = (),
        owner: str = "",
        request_id: str = "",
        traceparent: str = "",
    ) -> Generate:
        """The request as an engine takes it; `messages` are those of `conversation`."""
        num_top = (self.top_logprobs or 0) if self.logprobs else -1
        return Generate(
            id=0,
            messages=messages,
            max_new_tokens=self.max_completion_tokens or self.max_tokens or 0,
            sampling=Sampling(
                temperature=self.temperature or 0.0,
                top_p=self.top_p or 1.0,
                top_k=self.top_k or 0,
                seed=self._seed(),
                has_seed=self.seed is not None,
            ),
            stop=self.stops(),
            num_choices=self.n or 1,
            num_top_log_probs=num_top,
            images=images,
            owner=owner,
            pieces="all" if self.stream else "none",
            request_id=request_id,
            traceparent=traceparent,
        )


class FeedbackRequest(_Body):
    """`POST /v1/feedback`: what a reader makes of an answer."""

    id: Annotated[str, Field(pattern=r"^chatcmpl-[0-9a-f]{24}$")]
    """Of the answer: `id` of the completion. Nothing else would ever meet an answer."""
    rating: Literal["up", "down"] | None = None
    corrected: Annotated[str, Field(max_length=20_000)] = ""
    comment: Annotated[str, Field(max_length=20_000)] = ""

    @model_validator(mode="after")
    def _check_some(self) -> "FeedbackRequest":
        if self.rating is None and not self.corrected and not self.comment:
            raise ValueError("nothing is said: give a rating, a corrected answer or a comment")
        return self


def decode_image(url: str) -> bytes:
    """The bytes of an image in a data URL.

    Raises:
        ValueError: it is another URL: nothing is fetched for a client.
    """
    head, _, data = url.partition(",")
    if not head.startswith(DATA_URL) or not head.endswith(";base64"):
        raise ValueError("images are taken as data:image/...;base64, URLs; nothing is fetched")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the image is not base64: {error}") from None
