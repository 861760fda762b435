import pytest

from limbeck.serving.journal.config import Config
from tests.support.journal import Postgres, find_postgres


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A running server."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("needs PostgreSQL's initdb and postgres (Debian: apt install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents):  # its own user has to get there
        if parent.owner() == "root" and parent != parent.parent:
            parent.chmod(parent.stat().st_mode | 0o011)
    server = Postgres(programs, folder / "data")
    server.start()
    yield server
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
