"""From records to tokens, by the tokenizer's own chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.answerer import alternate
from limbeck.contracts.records import Record
from limbeck.models.chat import ChatTemplate, place_image_tokens
from limbeck.models.checkpoints import chat_template_of
from limbeck.models.vision.image_processing import ImageFormat
from limbeck.models.vocabulary import end_token_id


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
    """Many records as tokens, tokenised in one call; those with images need a format of theirs."""
    template = chat_template_of(tokenizer)
    prompts = [_prompt_text(template, record, image_format=image_format) for record in records]
    given = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = [record.answer for record in records]
    learnt = tokenizer(answers, add_special_tokens=False)["input_ids"]
    end = end_token_id(tokenizer)
    return [
        Rendered([*before, *after, end], len(before))
        for before, after in zip(given, learnt, strict=True)
    ]


def _prompt_text(
    template: ChatTemplate, record: Record, *, image_format: ImageFormat | None
) -> str:
    """What stands before a record's answer: its conversation, or the images of plain text."""
    messages = alternate([*record.history, record.question], system=record.system)
    num_tokens = 0
    if record.images:
        assert image_format is not None
        num_tokens = image_format.num_tokens * len(record.images)
        messages = place_image_tokens(messages, num_tokens=num_tokens)
    return template.render(messages) if record.question else messages[0].content
