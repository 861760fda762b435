from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from limbeck.serving.journal.config import Config
from tests.support.journal import Postgres, find_postgres


@pytest.fixture(scope="session")
def postgres():
    """A running server."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("needs PostgreSQL's initdb and postgres (Debian: apt install postgresql)")
    # Its own user has to get there; each run of pytest closes the folders of pytest to others.
    with TemporaryDirectory(prefix="limbeck-postgres-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        server = Postgres(programs, Path(name) / "data")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.sqlite'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def make_config(tmp_path):
    """Makes the config of a journal with a spool of its own."""

    def make(url, **fields):
        values = {"spool": tmp_path / "spool", "timeout_seconds": 0.2, "max_retry_seconds": 0.1}
        return Config(url=url, **(values | fields))

    return make
