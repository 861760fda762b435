"""The data card: what went into a corpus and what came out, as data and as a page.

Counts by source and reason, splits, specialties, lengths, entities, beside the statistics of the
reference corpus.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import SPLITS, Question, Record
from limbeck.data.filters.drop_log import Account
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
REASONS = {
    "duplicate": "重复",
    "near_duplicate": "近似重复",
    "low_confidence": "自带置信度低",
    "low_score": "评分低",
    "answer_too_short": "回答过短",
    "answer_too_long": "回答过长",
    "question_too_short": "问题过短",
    "question_too_long": "问题过长",
    "broken_json": "JSON 损坏",
    "broken_row": "表格行损坏",
    "broken_line": "行损坏",
    "missing_field": "缺少字段",
    "broken_conversation": "对话损坏",
    "bad_confidence": "置信度无效",
    "filtered": "按列筛除",
    "too_many_answers": "答案过多（标注可疑）",
    "in_evaluation": "与评测重合",
    "over_limit": "超出上限",
    "undecodable": "无法解码",
    "not_an_object": "不是对象",
    "wrong_type": "类型错误",
    "heading": "标题残留",
    "cut_text": "截断文本",
    "sentence": "整句",
    "empty": "空",
    "tail_is_head": "首尾相同",
    "duplicate_triple": "重复三元组",
    "relation_not_asked": "未用关系",
    "image_missing": "图像缺失",
    "image_unreadable": "不是图像",
    "image_damaged": "图像损坏",
    "image_empty": "图像为空",
    "image_too_large": "图像过大",
    "image_mode": "图像格式不支持",
    "image_outside": "图像在文件夹外",
    "images_not_read": "未读取图像",
    "unknown_label": "标签无含义",
}


def read_manner(corpus: Path) -> dict[str, str]:
    """How a corpus's domain joins items, and says that it does not know.

    Raises:
        DataError: the corpus has no card that says so.
    """
    path = corpus / "card.json"
    try:
        manner = json.loads(path.read_text(encoding="utf-8"))["manner"]
        return {"joiner": manner["joiner"], "unknown_answer": manner["unknown_answer"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"does not say how the domain answers ({error!r}); make the corpus again with "
            "`limbeck run`",
            path=path,
        ) from None


def describe(
    splits: Mapping[str, Sequence[Record]],
    *,
    questions: Sequence[Question],
    accounts: Mapping[str, Account],
    pack: Pack,
    free_text: set[str],
) -> dict[str, Any]:
    """The card of a corpus, but for what only its stage knows."""
    records = [record for name in SPLITS for record in splits[name]]
    pairs = [record for record in records if record.question]
    free = [record for record in pairs if record.source in free_text]
    specialties = Counter(record.specialty for record in records)
    dropped: Counter[str] = Counter()
    for account in accounts.values():
        dropped += account.dropped
    return {
        "pack": pack.description.name,
        "title": pack.description.title.model_dump(),
        "counts": {
            "read": sum(account.read for account in accounts.values()),
            "kept": len(records),
            "pairs": len(pairs),
            "statements": len(records) - len(pairs),
            "free_text": len(free),
            "dropped": dict(dropped.most_common()),
            "splits": {name: len(splits[name]) for name in SPLITS},
            "questions": dict(Counter(question.task for question in questions)),
        },
        "sources": {
            name: {
                "read": account.read,
                "kept": account.kept,
                "dropped": dict(account.dropped.most_common()),
                **account.notes,
            }
            for name, account in accounts.items()
        },
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


def measure(values: Sequence[int]) -> dict[str, Any]:
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


def render_page(card: Mapping[str, Any]) -> str:
    """The card as one page that needs nothing else."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(card=card, reasons=REASONS)


def _count_entities(records: Sequence[Record]) -> dict[str, Any]:
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
