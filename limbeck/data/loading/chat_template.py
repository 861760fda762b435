"""From records to tokens, by the tokenizer's own chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.answerer import alternate
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.records import Record
from limbeck.models.chat import (
    IMAGE_TOKEN,
    ChatTemplate,
    RenderedTurn,
    encode_continuation,
)
from limbeck.models.chat_tokens import (
    chat_template_of,
    encode_texts,
    end_of_text_id,
    start_ids,
)
from limbeck.models.vision.image_processing import ImageFormat


@dataclass(frozen=True)
class Rendered:
    """A record as tokens: what stands before `answer_start` is given, the rest is learnt."""

    input_ids: list[int]
    answer_start: int


def render_records(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    *,
    image_format: ImageFormat | None = None,
) -> list[Rendered]:
    """Many records as tokens, tokenised together; those with images need a format of theirs.

    A conversation is what the chat template makes of it, up to the token with which the template
    ends its last answer. Text without a question stands between the tokenizer's own start and end.
    """
    assert image_format is not None or not any(record.images for record in records)
    template = chat_template_of(tokenizer)
    turns = [render_record(template, record, image_format=image_format) for record in records]
    given = encode_texts(tokenizer, [turn.prompt for turn in turns])
    whole = encode_texts(tokenizer, [turn.prompt + turn.learnt for turn in turns])

    def encode(text: str) -> list[int]:
        return encode_texts(tokenizer, [text])[0]

    start, end = start_ids(tokenizer), end_of_text_id(tokenizer)
    rendered = []
    for record, turn, before, both in zip(records, turns, given, whole, strict=True):
        after = both[len(before) :]
        if both[: len(before)] != before:
            after = encode_continuation(turn.learnt, given=turn.prompt, encode=encode)
        if not record.question:
            before = [*start, *before]
        after = after if turn.end else [*after, end]
        rendered.append(Rendered([*before, *after], len(before)))
    return rendered


def render_record(
    template: ChatTemplate, record: Record, *, image_format: ImageFormat | None = None
) -> RenderedTurn:
    """A record's conversation, or its plain text after its images; without a format, no images.

    Raises:
        CheckpointError: the template cannot render it, or leaves out what is asked in it.
    """
    num_tokens = 0
    if record.images and image_format is not None:
        num_tokens = image_format.num_tokens * len(record.images)
    if not record.question:
        return RenderedTurn(IMAGE_TOKEN * num_tokens, "", template.mask(record.answer), "")
    messages = alternate([*record.history, record.question], system=record.system)
    try:
        turn = template.render_turn(messages, answer=record.answer, num_image_tokens=num_tokens)
    except CheckpointError as error:
        raise CheckpointError(f"record {record.id!r}: {error}") from None
    if left_out := template.find_unwritten(messages, prompt=turn.prompt):
        raise CheckpointError(
            f"record {record.id!r}: the chat template does not write its {left_out.role} turn "
            f"{left_out.content[:40]!r}; take it out of the record, or state another template"
        )
    return turn
