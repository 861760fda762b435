"""What the journal hands on: a source of `prepare`, and files for Label Studio and Argilla.

The three shapes hold the same exchanges. Label Studio's is its basic JSON format with predictions
and annotations (labelstud.io/guide/task_format), Argilla's what `Dataset.records.from_json` reads
(docs.argilla.io, version 2). Left out: sending anything anywhere.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from limbeck.contracts.exchange import Feedback, last_correction, last_thumbs, write_row
from limbeck.contracts.json_data import Json, JsonObject
from limbeck.serving.journal.queries import ExchangeRow

ExportShape = Literal["corpus", "label-studio", "argilla"]


def export(rows: Iterable[ExchangeRow], path: Path, *, shape: ExportShape) -> int:
    """The number of exchanges written; the file appears when it is whole.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            for part in _parts(rows, shape):
                file.write(part)
                count += 1
            if shape != "corpus":
                file.write("\n]\n" if count else "[]\n")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _parts(rows: Iterable[ExchangeRow], shape: ExportShape) -> Iterator[str]:
    for place, row in enumerate(rows):
        text = json.dumps(SHAPES[shape](row), ensure_ascii=False)
        if shape == "corpus":
            yield text + "\n"
        else:
            yield (",\n" if place else "[\n") + text


def to_corpus(row: ExchangeRow) -> JsonObject:
    """One line of a file for the reader `journal`, with its place in the chain."""
    return {
        "seq": row.seq,
        "hash": row.hash,
        "exchange": write_row(row.exchange),
        "feedback": [write_row(item) for item in row.feedback],
    }


def to_label_studio(row: ExchangeRow) -> JsonObject:
    """One task: the model's answer as a prediction, what people said as annotations."""
    exchange = row.exchange
    prediction: JsonObject = {
        "model_version": exchange.model_key or exchange.tier,
        "result": [_text_area("corrected_answer", "question", exchange.answer, exchange.id)],
    }
    if exchange.confidence is not None:
        prediction["score"] = exchange.confidence
    annotations = [_annotate(item) for item in row.feedback]
    return {
        "data": {
            "question": exchange.question,
            "answer": exchange.answer,
            "history": "\n".join(exchange.history),
            **_describe(row),
        },
        "predictions": [prediction],
        "annotations": [item for item in annotations if item["result"]],
    }


def to_argilla(row: ExchangeRow) -> JsonObject:
    """One record; what people said is a suggestion, for a response needs a user of Argilla's."""
    exchange = row.exchange
    suggestions: JsonObject = {
        "corrected_answer": {
            "value": exchange.answer,
            "agent": exchange.model_key or exchange.tier,
            "score": exchange.confidence,
        }
    }
    if correction := last_correction(row.feedback):
        suggestions["corrected_answer"] = _suggest(correction.corrected_answer, correction)
    thumbs = last_thumbs(row.feedback)
    if thumbs != "none":
        given = [item for item in row.feedback if item.thumbs == thumbs]
        suggestions["thumbs"] = _suggest(thumbs, given[-1])
    return {
        "id": exchange.id,
        "fields": {
            "question": exchange.question,
            "answer": exchange.answer,
            "history": "\n".join(exchange.history),
        },
        "metadata": _describe(row),
        "suggestions": suggestions,
        "responses": {},
        "vectors": {},
    }


def _describe(row: ExchangeRow) -> JsonObject:
    exchange = row.exchange
    found: JsonObject = {
        "exchange_id": exchange.id,
        "seq": row.seq,
        "time": write_row(exchange)["time"],
        "tier": exchange.tier,
        "model_key": exchange.model_key,
        "status": exchange.status,
    }
    return found if exchange.confidence is None else found | {"confidence": exchange.confidence}


def _annotate(item: Feedback) -> JsonObject:
    result: list[Json] = []
    if item.thumbs != "none":
        value = {"choices": [item.thumbs]}
        result.append(_region("thumbs", "answer", "choices", value, item.id))
    if item.corrected_answer:
        result.append(_text_area("corrected_answer", "question", item.corrected_answer, item.id))
    if item.comment:
        result.append(_text_area("comment", "answer", item.comment, item.id))
    return {"result": result, "was_cancelled": False, "ground_truth": item.role == "reviewer"}


def _text_area(name: str, to_name: str, text: str, owner: str) -> JsonObject:
    return _region(name, to_name, "textarea", {"text": [text]}, owner)


def _region(name: str, to_name: str, kind: str, value: JsonObject, owner: str) -> JsonObject:
    names = {"from_name": name, "to_name": to_name}
    return {"id": f"{owner}-{name}", **names, "type": kind, "value": value}


def _suggest(value: str, by: Feedback) -> JsonObject:
    return {"value": value, "agent": by.by or by.role, "score": None}


SHAPES: dict[ExportShape, Callable[[ExchangeRow], JsonObject]] = {
    "corpus": to_corpus,
    "label-studio": to_label_studio,
    "argilla": to_argilla,
}
