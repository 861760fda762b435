"""Records as the teacher's tokenizer makes them, to be looked at before anything is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Record
from limbeck.data.loading.chat_template import render_record, render_records
from limbeck.models.chat_tokens import chat_template_of

TRIED_RECORDS = 5000
MEASURED_RECORDS = 500
MOST_QUANTILE = 0.99


@dataclass(frozen=True)
class RenderedRecord:
    """What is given to a model, and what it learns to write."""

    given: str
    learnt: str


@dataclass(frozen=True)
class TokenLengths:
    """How many tokens nearly all records have, and nearly all answers."""

    records: int
    answers: int
    mean: float
    """Of a record, on average."""


def try_template(
    records: Sequence[Record], *, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Record], str]:
    """Of records evenly spread over the given ones those that the chat template takes, and a note
    on the others; '' where there are none.

    Raises:
        CheckpointError: it takes none.
    """
    template = chat_template_of(tokenizer)
    chosen = records[:: -(-len(records) // TRIED_RECORDS)]
    taken: list[Record] = []
    refusals: list[str] = []
    for record in chosen:
        try:
            render_record(template, record)
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            taken.append(record)
    if not refusals:
        return taken, ""
    if not taken:
        raise CheckpointError(refusals[0])
    return taken, (
        f"the run will drop what the teacher's chat template refuses, {len(refusals)} of "
        f"{len(chosen)} records, such as {refusals[0]}"
    )


def show_records(
    records: Sequence[Record], *, tokenizer: PreTrainedTokenizerBase
) -> list[RenderedRecord]:
    """Each record as text, control tokens included."""
    return [
        RenderedRecord(
            str(tokenizer.decode(item.input_ids[: item.answer_start])),
            str(tokenizer.decode(item.input_ids[item.answer_start :])),
        )
        for item in render_records(tokenizer, records)
    ]


def measure_tokens(
    records: Sequence[Record], *, tokenizer: PreTrainedTokenizerBase
) -> TokenLengths:
    """Lengths of records evenly spread over the given ones."""
    chosen = records[:: -(-len(records) // MEASURED_RECORDS)]
    rendered = render_records(tokenizer, chosen)
    lengths = [len(item.input_ids) for item in rendered]
    answers = [len(item.input_ids) - item.answer_start for item in rendered]
    most = np.quantile([lengths, answers], MOST_QUANTILE, axis=1, method="higher")
    return TokenLengths(int(most[0]), int(most[1]), float(np.mean(lengths)))


def count_positions(config: JsonObject) -> float:
    """The longest sequence that a model is made for, by its `config.json`; infinity for none."""
    found = config.get("text_config", config).get("max_position_embeddings")
    return float(found) if isinstance(found, int) else math.inf


def describe_long_records(num_tokens: int, num_positions: float) -> str:
    """What happens to records that are longer than a model is made for."""
    return (
        f"records have up to {num_tokens:,} tokens, and teacher or student is made for "
        f"{num_positions:,.0f}: longer ones are cut, and questions that do not fit count as wrong; "
        "shorten the texts, or choose models that read more"
    )


def describe_fresh_student(config: JsonObject) -> JsonObject:
    """A student of half a teacher's width and depth, by the teacher's `config.json`."""
    text = config.get("text_config", config)
    hidden = int(text.get("hidden_size", 1024))
    layers = int(text.get("num_hidden_layers", 16))
    width = max(64, hidden // 2 // 64 * 64)
    num_heads = width // 64 if width >= 256 else width // 32
    num_kv_heads = num_heads // 2 if num_heads % 2 == 0 else num_heads
    return {
        "kind": "dense",
        "hidden_size": width,
        "num_hidden_layers": max(2, layers // 2),
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": width // num_heads,
        "intermediate_size": width * 3,
    }
