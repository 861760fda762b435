"""The data card: what went into a corpus and what came out, as data and as a page.

Counts by source and reason, splits, specialties, lengths, entities, beside the statistics of the
reference corpus.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.page_templates import load_template
from limbeck.contracts.records import SPLITS, Question, Reason, Record, Source, Split
from limbeck.data.corpus.account import describe_sources
from limbeck.data.filters.record_log import RecordLog
from limbeck.data.packs.schema import Pack

TEMPLATE = "card.html.jinja"
NUM_BINS = 20
REFERENCE = {
    "mean_question_chars": 28.7,
    "least_answer_chars": 15,
    "most_answer_chars": 200,
    "specialties": 12,
    "pairs": 120_000,
}
"""The corpus that this one is set beside."""


def describe(
    splits: Mapping[Split, Sequence[Record]],
    *,
    questions: Sequence[Question],
    log: RecordLog,
    pack: Pack,
    sources: Mapping[str, Source],
) -> JsonObject:
    """The card of a corpus, but for what only its stage measures."""
    records = [record for name in SPLITS for record in splits[name]]
    pairs = [record for record in records if record.question]
    free = [record for record in pairs if sources[record.source].free_text]
    specialties = Counter(record.specialty for record in records)
    return {
        "pack": pack.description.name,
        "title": pack.description.title.model_dump(),
        "disclaimer": pack.description.disclaimer.model_dump(),
        "emergencies": [item.model_dump() for item in pack.description.emergencies],
        "safety": pack.safety.model_dump(mode="json", exclude_defaults=True),
        "answer_format": {
            "joiner": pack.description.joiner,
            "unknown_answer": pack.description.unknown_answer,
        },
        "tasks": {key: names.model_dump() for key, names in pack.description.tasks.items()},
        "headline_tasks": list(pack.description.headline_tasks),
        "counts": {
            "read": sum(counts.read for counts in log.sources.values()),
            "kept": len(records),
            "pairs": len(pairs),
            "statements": len(records) - len(pairs),
            "free_text": len(free),
            "dropped": dict(log.total_dropped().most_common()),
            "changed": dict(log.total_changed().most_common()),
            "splits": {name: len(splits[name]) for name in SPLITS},
            "questions": dict(Counter(question.task for question in questions)),
        },
        "sources": describe_sources(log),
        "specialties": {
            key: {"zh": item.zh, "en": item.en, "records": specialties[key]}
            for key, item in pack.description.specialties.items()
        },
        "without_specialty": specialties[""],
        "relations": {
            key: {"zh": item.zh, "en": item.en} for key, item in pack.description.relations.items()
        },
        "chars": {
            "question": measure([len(record.question) for record in pairs]),
            "answer": measure([len(record.answer) for record in pairs]),
            "free_text_question": measure([len(record.question) for record in free]),
            "free_text_answer": measure([len(record.answer) for record in free]),
        },
        "entities": _count_entities(records),
        "reference": REFERENCE,
    }


def measure(values: Sequence[int]) -> JsonObject:
    """Mean, least, most and a histogram of equal bins up to the 99th percentile."""
    if not values:
        return {"count": 0, "mean": 0.0, "least": 0, "most": 0, "bin_chars": 1, "bins": []}
    ordered = sorted(values)
    top = ordered[int(0.99 * (len(ordered) - 1))] + 1
    width = max(1, -(-top // NUM_BINS))
    bins = [0] * NUM_BINS
    for value in values:
        bins[min(value // width, NUM_BINS - 1)] += 1
    return {
        "count": len(values),
        "mean": round(sum(values) / len(values), 2),
        "least": ordered[0],
        "most": ordered[-1],
        "bin_chars": width,
        "bins": bins,
    }


def render_page(card: JsonMapping, *, reasons: Mapping[str, Reason]) -> str:
    """The card as one page that needs nothing else."""
    template = load_template(Path(__file__).parent, name=TEMPLATE)
    return template.render(card=card, reasons=reasons)


def _count_entities(records: Sequence[Record]) -> JsonObject:
    mentions: dict[str, Counter[str]] = {}
    for record in records:
        for entity in record.entities:
            mentions.setdefault(entity.type, Counter())[entity.text] += 1
    return {
        type_: {
            "mentions": names.total(),
            "distinct": len(names),
            "most_frequent": dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))[:8]),
        }
        for type_, names in sorted(mentions.items())
    }
