"""What is forgotten is gone from the disk and never comes back, and the chain stays whole."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from limbeck.serving.journal.audit import verify
from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.retention import ErasureScope, forget
from limbeck.serving.journal.schema import exchanges, feedback
from limbeck.serving.journal.writer import Journal
from tests.support.journal import START, make_exchange, make_feedback, stored_ids


@pytest.fixture
def engine(url, make_config):
    """Exchanges e0 to e9, a minute apart, and feedback on the first two a day later."""
    fill(make_config(url))
    engine = open_database(parse_url(url), timeout_seconds=5.0)
    yield engine
    engine.dispose()


def fill(config):
    with Journal(config) as journal:
        for number in range(10):
            journal.put(make_exchange(number))
        journal.put(make_feedback(0, "e0", comment="secret comment"))
        journal.put(make_feedback(1, "e1"))
        assert journal.flush(30.0)


def left(engine, table=exchanges):
    with engine.connect() as connection:
        return sorted(connection.execute(sa.select(table.c.id)).scalars())


def test_one_exchange_goes_with_its_feedback(engine, url, make_config):
    assert forget(parse_url(url), ErasureScope("e1"), by="ada", reason="asked to") == 2
    assert "e1" not in left(engine)
    assert left(engine, feedback) == ["f0"]
    found = verify(engine)
    assert not found.faults
    assert found.num_erased == 2
    assert forget(parse_url(url), ErasureScope("e1"), by="ada") == 0
    fill(make_config(url))  # a spool that is read once more
    assert "e1" not in left(engine)
    assert len(stored_ids(url)) == 13


def test_what_is_old_goes_and_young_feedback_on_it(engine, url):
    before = START + timedelta(minutes=4)
    assert forget(parse_url(url), ErasureScope(before=before), by="ada") == 6
    assert left(engine) == [f"e{number}" for number in range(4, 10)]
    assert left(engine, feedback) == []
    assert forget(parse_url(url), ErasureScope("e5"), by="ada") == 1
    assert not verify(engine).faults
    assert forget(parse_url(url), ErasureScope(before=before + timedelta(days=9)), by="ada") == 5
    assert not verify(engine).faults


@pytest.mark.parametrize(
    ("command", "seq", "message"),
    [
        ("UPDATE ledger SET erased_by = 13 WHERE id = 'e5'", 6, "does not cover it"),
        ("UPDATE ledger SET erased_by = NULL WHERE id = 'e1'", 2, "content was removed"),
        ("UPDATE erasures SET exchange_id = 'e5'", 13, "content was changed"),
    ],
)
def test_an_erasure_hides_no_other(engine, url, command, seq, message):
    forget(parse_url(url), ErasureScope("e1"), by="ada")
    with engine.begin() as connection:
        connection.exec_driver_sql(command)
        if "13 WHERE" in command:
            connection.exec_driver_sql("DELETE FROM exchanges WHERE id = 'e5'")
    faults = verify(engine).faults
    assert any(fault.seq == seq and message in fault.message for fault in faults), faults


def test_no_file_of_sqlite_holds_what_was_forgotten(tmp_path, make_config):
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    fill(make_config(url))

    def holds(text):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return any(text.encode() in path.read_bytes() for path in files)

    assert holds("secret comment")
    forget(parse_url(url), ErasureScope("e0"), by="ada")
    assert not holds("secret comment")
    assert not holds(make_exchange(0).question)
    assert holds(make_exchange(1).question)
