"""Where a journal lies, and what it may use."""

from pathlib import Path

from limbeck.contracts.config import Config as BaseConfig
from limbeck.contracts.fields import PositiveFloat, PositiveInt


class Config(BaseConfig):
    """The journal of a service."""

    url: str = "sqlite:///journal/journal.sqlite"
    """The database, as SQLAlchemy names one: `sqlite:///FILE` on a disk of this machine, or
    `postgresql://USER@HOST/NAME`, whose password is better left to `PGPASSWORD` or `~/.pgpass`."""
    spool: Path = Path("journal/spool")
    """Folder on a disk of this machine for what the database has not taken yet."""
    max_spool_bytes: PositiveInt = 1 << 30
    """Most that may wait there; what comes then is held in memory, and lost beyond that."""
    max_memory_rows: PositiveInt = 1000
    """Most rows held in memory where the spool takes none."""
    batch_rows: PositiveInt = 200
    """Most rows of one commit."""
    timeout_seconds: PositiveFloat = 5.0
    """How long one attempt waits for a lock or a connection of the database."""
    max_retry_seconds: PositiveFloat = 5.0
    """Longest pause between two attempts; the first is a twentieth of a second."""
