"""No accepted row is lost, none stands twice, and no caller waits: whatever breaks."""

import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy as sa

from limbeck.contracts.errors import JournalError
from limbeck.serving.journal.audit import verify
from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.writer import Journal
from tests.support.journal import make_exchange, make_feedback, small_disk, stored_ids
from tests.support.waiting import wait_for


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'journal.sqlite'}"


def is_whole(url):
    engine = open_database(parse_url(url), timeout_seconds=5.0)
    try:
        return not verify(engine).faults
    finally:
        engine.dispose()


def names(*numbers):
    return [f"e{number}" for number in numbers]


def test_rows_are_written_in_order_and_once(url, make_config):
    with Journal(make_config(url, batch_rows=7)) as journal:
        for number in [*range(20), 3, 19]:
            assert journal.put(make_exchange(number))
        assert journal.put(make_feedback(0, "e1"))
        assert journal.flush(30.0)
        health = journal.health()
    assert stored_ids(url) == [*names(*range(20)), "f0"]
    assert (health.state, health.written_rows, health.waiting_bytes) == ("ok", 21, 0)
    assert is_whole(url)


def test_nobody_else_may_read_it(sqlite_url, make_config, tmp_path):
    url = sqlite_url.replace("journal.sqlite", "new/journal.sqlite")
    with Journal(make_config(url)) as journal:
        journal.put(make_exchange(0))
        assert journal.flush(30.0)
        private = [tmp_path / "new", tmp_path / "spool", *(tmp_path / "new").iterdir()]
        assert len(private) == 5
        assert [path.stat().st_mode & 0o077 for path in private] == [0] * 5


def test_two_journals_share_one_database(url, make_config, tmp_path):
    with (
        Journal(make_config(url)) as first,
        Journal(make_config(url, spool=tmp_path / "other")) as second,
    ):
        for number in range(0, 100, 2):
            first.put(make_exchange(number))
            second.put(make_exchange(number + 1))
        assert first.flush(30.0)
        assert second.flush(30.0)
    assert len(stored_ids(url)) == 100
    assert is_whole(url)


def test_texts_are_redacted_before_they_touch_the_disk(sqlite_url, make_config, tmp_path, caplog):
    def redact(text):
        if "fail" in text:
            raise ValueError(text)
        return text.replace("张三", "[NAME]")

    with Journal(make_config(sqlite_url), redact=redact) as journal:
        journal.put(make_exchange(0, question="张三痛风", history=("张三", "好"), system="张三"))
        journal.put(make_feedback(0, comment="张三", corrected_answer="张三"))
        journal.put(make_exchange(1, question="fail 张三"))
        assert journal.flush(30.0)
        assert journal.health().unredacted_rows == 1
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("张三".encode() in data for data in files)
    assert any(b"[NAME]" in data for data in files)
    assert any(b"redaction failed" in data for data in files)
    assert "张三" not in caplog.text


def test_another_process_holds_the_lock(sqlite_url, make_config, tmp_path, caplog):
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with Journal(make_config(sqlite_url)) as journal:
        journal.put(make_exchange(0))
        assert journal.flush(30.0)
        with subprocess.Popen(
            [sys.executable, "-S", "-c", program, tmp_path / "journal.sqlite"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout.readline() == b"held\n"
            for number in range(1, 50):
                assert journal.put(make_exchange(number))
            wait_for(lambda: "locked" in journal.health().last_error)
            assert journal.health().state == "spooling"
            assert "痛风" not in caplog.text
            holder.stdin.close()
        assert journal.flush(30.0)
        assert journal.health().state == "ok"
    assert stored_ids(sqlite_url) == names(*range(50))
    assert is_whole(sqlite_url)


def test_sqlite_is_full(sqlite_url, make_config):
    pages = 25

    def limit(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    sa.event.listen(sa.Engine, "connect", limit)
    try:
        with Journal(make_config(sqlite_url, batch_rows=5)) as journal:
            for number in range(100):
                assert journal.put(make_exchange(number, answer="长" * 500))
            wait_for(lambda: "full" in journal.health().last_error)
            assert journal.health().state == "spooling"
            assert 0 < journal.health().written_rows < 100
            pages = 10_000
            assert journal.flush(30.0)
    finally:
        sa.event.remove(sa.Engine, "connect", limit)
    assert stored_ids(sqlite_url) == names(*range(100))
    assert is_whole(sqlite_url)


def test_the_disk_is_full(tmp_path, make_config, caplog):
    with small_disk(tmp_path / "disk", kibibytes=400) as is_mounted:
        if not is_mounted:
            pytest.skip("needs the right to mount a tmpfs")
        ballast = tmp_path / "disk" / "ballast"
        url = f"sqlite:///{tmp_path / 'disk' / 'journal.sqlite'}"
        config = make_config(url, spool=tmp_path / "disk" / "spool", max_memory_rows=10)
        with Journal(config) as journal:
            journal.put(make_exchange(0))
            assert journal.flush(30.0)
            with pytest.raises(OSError, match="space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            accepted = [n for n in range(1, 100) if journal.put(make_exchange(n))]
            health = journal.health()
            assert health.state == "dropping"
            assert health.dropped_rows == 99 - len(accepted) > 0
            assert "rows are lost" in caplog.text
            ballast.unlink()
            assert journal.put(make_exchange(100))
            assert journal.flush(30.0)
            assert journal.health().state == "ok"
            assert journal.health().dropped_rows == health.dropped_rows
        assert stored_ids(url) == names(0, *accepted, 100)
        assert is_whole(url)


def test_no_folder_for_the_spool_yet_the_database_answers(sqlite_url, make_config, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with Journal(make_config(sqlite_url, spool=tmp_path / "file" / "spool")) as journal:
        for number in range(20):
            assert journal.put(make_exchange(number))
        assert journal.flush(30.0)
    assert stored_ids(sqlite_url) == names(*range(20))


def test_what_a_closed_journal_left_is_written_by_the_next(make_config, tmp_path):
    folder = tmp_path / "later"
    url = f"sqlite:///{folder / 'journal.sqlite'}"
    folder.write_text("in the way")
    with Journal(make_config(url)) as journal:
        for number in range(5):
            assert journal.put(make_exchange(number))
        wait_for(lambda: journal.health().state == "spooling")
    folder.unlink()
    with Journal(make_config(url)) as journal:
        journal.put(make_exchange(5))
        assert journal.flush(30.0)
    assert stored_ids(url) == names(*range(6))


def test_a_row_that_the_database_never_takes_stops_no_other(sqlite_url, make_config, tmp_path):
    with Journal(make_config(sqlite_url)) as journal:
        journal.put(make_exchange(0))
        assert journal.flush(30.0)
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON exchanges WHEN NEW.id = 'e2' "
                "BEGIN SELECT RAISE(ABORT, 'never'); END"
            )
            connection.commit()
        for number in range(1, 4):
            journal.put(make_exchange(number))
        assert journal.flush(30.0)
        assert journal.health().refused_rows == 1
    assert stored_ids(sqlite_url) == names(0, 1, 3)
    (line,) = (tmp_path / "spool" / "refused.jsonl").read_text().splitlines()
    assert json.loads(line)["content"]["id"] == "e2"
    assert is_whole(sqlite_url)


PROGRAM = """
import sys
from tests.support.journal import make_exchange
from limbeck.serving.journal.config import Config
from limbeck.serving.journal.writer import Journal

journal = Journal(Config(url=sys.argv[1], spool=sys.argv[2]))
for number in range(100_000):
    assert journal.put(make_exchange(number))
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_accepted(url, make_config, tmp_path):
    words = [sys.executable, "-c", PROGRAM, url, str(tmp_path / "spool")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        accepted = [int(process.stdout.readline()) for _ in range(333)]
        process.kill()
        accepted += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    with Journal(make_config(url)) as journal:
        assert journal.flush(30.0)
    stored = stored_ids(url)
    assert len(accepted) <= len(stored) <= len(accepted) + 1  # the last one was not reported
    assert stored == names(*range(len(stored)))
    assert is_whole(url)


def test_a_killed_server_loses_nothing(postgres, make_config, caplog):
    url = postgres.new_database()
    caplog.set_level(logging.WARNING)
    with Journal(make_config(url, batch_rows=10)) as journal:
        for number in range(300):
            if number == 100:
                wait_for(lambda: journal.health().written_rows > 10)
                postgres.kill()
            assert journal.put(make_exchange(number))
        wait_for(lambda: journal.health().state == "spooling")
        postgres.start()
        assert journal.flush(60.0)
        assert journal.health().state == "ok"
    assert stored_ids(url) == names(*range(300))
    assert is_whole(url)
    assert "takes no rows" in caplog.text
    assert "takes rows again" in caplog.text
    assert "痛风" not in caplog.text


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "sqlite://", "://"])
def test_other_databases_are_refused_without_their_password(url, make_config):
    with pytest.raises(JournalError, match="expected sqlite:///FILE") as caught:
        Journal(make_config(url))
    assert "secret" not in str(caught.value)
