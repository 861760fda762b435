"""Exchanges, feedback and databases for the tests of the journal."""

import os
import random
import shutil
import socket
import subprocess
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from limbeck.contracts.exchange import Exchange, Feedback
from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.schema import ledger
from tests.support.waiting import wait_for

START = datetime(2026, 11, 1, 8, 30, 0, 123456, tzinfo=UTC)


def make_exchange(number: int = 0, **fields) -> Exchange:
    """The exchange of a number; each is a minute later than the one before."""
    values = {
        "id": f"e{number}",
        "time": START + timedelta(minutes=number),
        "requested_model": "auto",
        "tier": "edge",
        "route_reason": "cascade",
        "model_key": "0f" * 32,
        "question": f"痛风{number}吃什么？",
        "answer": f"低嘌呤饮食{number}",
        "status": "answered",
        "confidence": 0.75,
        "total_seconds": 0.1,
    }
    return Exchange(**(values | fields))


def make_feedback(number: int = 0, exchange: str = "e0", **fields) -> Feedback:
    """The feedback of a number on an exchange."""
    values = {
        "id": f"f{number}",
        "exchange_id": exchange,
        "time": START + timedelta(days=1, minutes=number),
        "by": "ada",
    }
    return Feedback(**(values | fields))


def stored_ids(url: str) -> list[str]:
    """The ids of the chain, in its order."""
    engine = open_database(parse_url(url), timeout_seconds=5.0)
    try:
        with engine.connect() as connection:
            query = sa.select(ledger.c.id).order_by(ledger.c.seq)
            return list(connection.execute(query).scalars())
    finally:
        engine.dispose()


class Postgres:
    """A server of its own in a folder, which can be killed and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self.port = find_port()
        self._log = folder.with_name("postgres.log")
        self._owner: dict[str, str] = {}
        if os.getuid() == 0:  # it refuses to run as root
            self._owner = {"user": "postgres"}
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "postgres")
        words = ["initdb", "-D", folder, "-A", "trust", "-U", "limbeck", "--no-sync", "-E", "UTF8"]
        words[0] = programs / "initdb"
        subprocess.run(words, check=True, capture_output=True, cwd="/", **self._owner)

    def start(self) -> None:
        """Start it; after a kill, this fails until the processes of the killed one are gone."""
        try:
            wait_for(self._is_started)
        except AssertionError as error:
            error.add_note(self._log.read_text()[-4000:])
            raise

    def _is_started(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            words = [self._programs / "postgres", "-D", self._folder, "-p", str(self.port)]
            words += ["-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    words, cwd="/", stdout=log, stderr=log, **self._owner
                )
        return self._answers()

    def kill(self) -> None:
        """SIGKILL to the server; its other processes end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: at once
            self._process.wait(60)

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._count += 1
        self._run(f"CREATE DATABASE test{self._count}")
        return f"postgresql://limbeck@127.0.0.1:{self.port}/test{self._count}"

    def _answers(self) -> bool:
        try:
            self._run("SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def _run(self, command: str) -> None:
        url = f"postgresql+psycopg://limbeck@127.0.0.1:{self.port}/postgres"
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(command)


def find_port() -> int:
    """A free port that no client gets by chance, or by itself, while its server is away."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def find_postgres() -> Path | None:
    """The folder with `initdb` and `postgres`; None where they are not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((item for item in folders if (item / "postgres").exists()), None)


@contextmanager
def small_disk(folder: Path, *, kibibytes: int):
    """Mounts a disk of that size; False where this may not be done."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except FileNotFoundError:
        yield False
        return
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
