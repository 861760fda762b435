"""From records to tokens, by the tokenizer's own chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.records import Record
from limbeck.models.vision.image_processing import ImageFormat, place_image_tokens


@dataclass(frozen=True)
class Rendered:
    """A record as tokens: what stands before `answer_start` is given, the rest is learnt."""

    input_ids: list[int]
    answer_start: int


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, question: str, *, history: Sequence[str] = ()
) -> list[int]:
    """The tokens of a question, up to where the answer starts."""
    text = prompt_text(tokenizer, question, history=history)
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, question: str, *, history: Sequence[str] = ()
) -> str:
    """The text of a question under the chat template; a base model gets the bare question."""
    if tokenizer.chat_template is None:
        return "\n".join([*history, question, ""])
    turns = [*history, question]
    messages = [
        {"role": "assistant" if index % 2 else "user", "content": turn}
        for index, turn in enumerate(turns)
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    return text


def render_record(tokenizer: PreTrainedTokenizerBase, record: Record) -> Rendered:
    """A record as tokens; plain text is learnt from its first token on."""
    return render_records(tokenizer, [record])[0]


def render_records(
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    *,
    image_format: ImageFormat | None = None,
) -> list[Rendered]:
    """Many records as tokens, tokenised in one call; those with images need a format of theirs."""
    prompts = [_given(tokenizer, record, image_format=image_format) for record in records]
    given = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = [record.answer for record in records]
    learnt = tokenizer(answers, add_special_tokens=False)["input_ids"]
    end = cast(list[int], [tokenizer.eos_token_id])
    return [
        Rendered([*before, *after, *end], len(before))
        for before, after in zip(given, learnt, strict=True)
    ]


def _given(
    tokenizer: PreTrainedTokenizerBase, record: Record, *, image_format: ImageFormat | None
) -> str:
    """What stands before a record's answer: images first, then its turns."""
    turns = [*record.history, record.question]
    if record.images:
        assert image_format is not None
        num_tokens = image_format.num_tokens * len(record.images)
        turns = place_image_tokens(turns, num_tokens=num_tokens)
    if not record.question:
        return turns[0]
    return prompt_text(tokenizer, turns[-1], history=turns[:-1])
