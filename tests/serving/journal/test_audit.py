"""Every kind of tampering is found, and the row is named; an untouched journal passes."""

import pytest
import sqlalchemy as sa

from limbeck.serving.journal.audit import verify
from limbeck.serving.journal.chain import Head
from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.writer import Journal
from tests.support.journal import make_exchange, make_feedback


@pytest.fixture
def engine(url, make_config):
    """A journal of three exchanges, rows 1 to 3, a feedback, row 4, and one more exchange."""
    with Journal(make_config(url)) as journal:
        for number in range(3):
            assert journal.put(make_exchange(number, history=("甲", "乙"), confidence=None))
        assert journal.put(
            make_feedback(0, thumbs="down", corrected_answer="低嘌呤", comment="不全")
        )
        assert journal.put(make_exchange(4, question="a\0b\ud800", confidence=float("nan")))
        assert journal.flush(30.0)
    engine = open_database(parse_url(url), timeout_seconds=5.0)
    yield engine
    engine.dispose()


def test_what_nobody_touched_is_whole(engine):
    found = verify(engine)
    assert not found.faults
    assert (found.num_rows, found.num_erased, found.head.seq) == (5, 0, 5)
    assert not verify(engine, expected=found.head).faults


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("commands", "found"),
    [
        (["UPDATE exchanges SET answer = 'x' WHERE id = 'e1'"], {2: "content was changed"}),
        (["UPDATE exchanges SET time_us = 5 WHERE id = 'e1'"], {2: "content was changed"}),
        (["UPDATE exchanges SET history = '[' WHERE id = 'e1'"], {2: "content was changed"}),
        (["UPDATE exchanges SET confidence = 0.1 WHERE id = 'e2'"], {3: "content was changed"}),
        (["UPDATE feedback SET \"by\" = 'eve'"], {4: "content was changed"}),
        (["DELETE FROM exchanges WHERE id = 'e2'"], {3: "content was removed"}),
        (["UPDATE ledger SET time_us = 5 WHERE seq = 2"], {2: "row was changed"}),
        (["UPDATE ledger SET exchange_id = 'e1' WHERE seq = 4"], {4: "row was changed"}),
        (["DELETE FROM ledger WHERE seq = 2"], {2: "row was removed", 0: "not in the chain"}),
        (
            ["DELETE FROM ledger WHERE seq IN (2, 3)", "DELETE FROM exchanges WHERE id = 'e1'"],
            {2: "rows 2 to 3 were removed", 0: "not in the chain"},
        ),
        (
            [
                "UPDATE ledger SET seq = seq + 10 WHERE seq IN (2, 3)",
                "UPDATE ledger SET seq = 15 - seq WHERE seq > 10",
            ],
            {2: "changed or moved", 3: "changed or moved"},
        ),
        (["DELETE FROM ledger WHERE seq = 5"], {5: "removed from the end", 0: "not in the chain"}),
        (
            [
                "UPDATE ledger SET erased_by = 9 WHERE seq = 2",
                "DELETE FROM exchanges WHERE id = 'e1'",
            ],
            {2: "there is no erasure 9"},
        ),
        (["UPDATE ledger SET erased_by = 5 WHERE seq = 2"], {2: "erased content is back"}),
        (
            [
                "UPDATE exchanges SET id = 'x' WHERE id = 'e1'",
                "UPDATE exchanges SET id = 'e1' WHERE id = 'e2'",
                "UPDATE exchanges SET id = 'e2' WHERE id = 'x'",
            ],
            {2: "content was changed", 3: "content was changed"},
        ),
    ],
)
def test_tampering_is_found_and_placed(engine, commands, found):
    with engine.begin() as connection:
        for command in commands:
            connection.exec_driver_sql(command)
    faults = verify(engine).faults
    for seq, message in found.items():
        assert any(fault.seq == seq and message in fault.message for fault in faults), faults
    assert {fault.seq for fault in faults} == set(found)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_postgres_hides_no_tampering(engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE exchanges SET confidence = 0.1 WHERE id = 'e1'")
        connection.exec_driver_sql("UPDATE feedback SET thumbs = 'up'")
        connection.exec_driver_sql("DELETE FROM ledger WHERE seq = 3")
    found = {(fault.seq, fault.message.split(":")[0]) for fault in verify(engine).faults}
    assert found == {
        (2, "the content was changed"),
        (3, "the row was removed"),
        (4, "the content was changed"),
        (0, "a row of exchanges is not in the chain"),
    }


def test_an_end_that_was_cut_off_with_care_needs_a_head_kept_elsewhere(engine):
    kept = verify(engine).head
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger WHERE seq = 5")
        connection.exec_driver_sql("DELETE FROM exchanges WHERE id = 'e4'")
        last = connection.exec_driver_sql("SELECT hash FROM ledger WHERE seq = 4").scalar_one()
        connection.execute(sa.text("UPDATE head SET seq = 4, hash = :hash"), {"hash": last})
    assert not verify(engine).faults
    (fault,) = verify(engine, expected=kept).faults
    assert fault.seq == 5
    (fault,) = verify(engine, expected=Head(4, "0" * 64)).faults
    assert "not the one whose head was kept" in fault.message


def test_no_more_faults_than_asked_for(engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE exchanges SET answer = 'x'")
    assert len(verify(engine, max_faults=2).faults) == 2
