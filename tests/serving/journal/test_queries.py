"""Pages, filters, counts and the review queue, on each kind of database."""

from datetime import UTC, timedelta

import pytest

from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.queries import (
    ExchangeFilter,
    Review,
    count,
    read_all,
    read_page,
    read_review_queue,
)
from limbeck.serving.journal.writer import Journal
from tests.support.journal import START, make_exchange, make_feedback

EXCHANGES = [
    make_exchange(0, num_prompt_tokens=5, num_completion_tokens=7, total_seconds=0.5),
    make_exchange(1, tier="cloud", confidence=None, total_seconds=1.5),
    make_exchange(2, status="declined", confidence=0.1),
    make_exchange(3, confidence=0.2, history=("早", "你好"), system="简短"),
    make_exchange(70, tier="mobile", model_key="ab" * 32),
]
SHADOWED = make_exchange(71, route_reason="shadow", total_seconds=99.0, confidence=0.1)
"""What a candidate answered to a copy: it stands in no page and in no count."""
FEEDBACK = [
    make_feedback(0, "e0", thumbs="up"),
    make_feedback(1, "e1", thumbs="down", comment="不对"),
    make_feedback(2, "e1", corrected_answer="多喝水"),
    make_feedback(3, "e3", thumbs="up", role="reviewer"),
    make_feedback(4, "unknown", thumbs="up"),
]


@pytest.fixture
def engine(url, make_config):
    with Journal(make_config(url)) as journal:
        for item in (*EXCHANGES, SHADOWED, *FEEDBACK):
            assert journal.put(item)
        assert journal.flush(30.0)
    engine = open_database(parse_url(url), timeout_seconds=5.0)
    yield engine
    engine.dispose()


def ids(rows):
    return [row.exchange.id for row in rows]


def test_reading(engine):
    pages = [read_page(engine, ExchangeFilter(), limit=2)]
    while pages[-1]:
        pages.append(read_page(engine, ExchangeFilter(), limit=2, before_seq=pages[-1][-1].seq))
    assert [ids(page) for page in pages] == [["e70", "e3"], ["e2", "e1"], ["e0"], []]
    rows = list(read_all(engine, ExchangeFilter()))
    assert [row.exchange for row in rows] == EXCHANGES
    assert rows[1].feedback == tuple(FEEDBACK[1:3])
    assert rows[1].exchange.time.tzinfo is UTC

    for choice, expected in (
        (
            ExchangeFilter(since=START + timedelta(minutes=1), until=START + timedelta(minutes=3)),
            "e1 e2",
        ),
        (ExchangeFilter(tiers=("cloud", "mobile")), "e1 e70"),
        (ExchangeFilter(model_keys=("ab" * 32,)), "e70"),
        (ExchangeFilter(statuses=("declined",)), "e2"),
        (ExchangeFilter(ids=("e0",)), "e0"),
        (ExchangeFilter(feedback=("up",)), "e0 e3"),
        (ExchangeFilter(feedback=("down", "reviewed")), "e1 e3"),
        (ExchangeFilter(feedback=("corrected",)), "e1"),
        (ExchangeFilter(feedback=("commented",), tiers=("edge",)), ""),
        (ExchangeFilter(feedback=("none",)), "e2 e70"),
        (ExchangeFilter(shadows="only"), "e71"),
        (ExchangeFilter(ids=("e71",)), "e71"),
    ):
        assert ids(read_all(engine, choice)) == expected.split(), choice


def test_counts(engine):
    found = count(engine, ExchangeFilter())
    assert found.num_exchanges == 5
    assert found.by_tier == {"edge": 3, "cloud": 1, "mobile": 1}
    assert found.by_status == {"answered": 4, "declined": 1}
    assert count(engine, ExchangeFilter(tiers=("none",))).num_exchanges == 0


def test_what_a_reviewer_should_look_at(engine):
    found = read_review_queue(engine, Review(max_confidence=0.8, audit_ratio=0.0))
    assert [(row.exchange.id, reasons) for row, reasons in found] == [
        ("e70", ("low_confidence",)),
        ("e2", ("unknown",)),
        ("e1", ("thumbs_down", "corrected")),
        ("e0", ("low_confidence",)),
    ]
    every = read_review_queue(engine, Review(max_confidence=0.0, audit_ratio=1.0))
    assert len(every) == 4
    some = Review(max_confidence=0.0, audit_ratio=0.5)
    drawn = [row for row, reasons in read_review_queue(engine, some) if "audit" in reasons]
    assert {row.exchange.id for row in drawn} == {
        row.exchange.id for row, _ in every if int(row.hash[:4], 16) < 0x8000
    }
    (last,) = read_review_queue(engine, Review(), limit=1, before_seq=found[2][0].seq + 1)
    assert last[0].exchange.id == "e1"
