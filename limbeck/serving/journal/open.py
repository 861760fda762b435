"""The journal of a service, as its command names it."""

from pathlib import Path

from limbeck.serving.journal.config import Config
from limbeck.serving.journal.writer import Journal
from limbeck.serving.privacy import redact

NONE = "none"


def open_journal(place: str) -> Journal | None:
    """The journal in a file or database; None where none is wanted.

    What identifies a person is taken out of every text before it is stored. What a database does
    not take lies in the folder `spool` beside the file, or in `journal/spool`.

    Raises:
        JournalError: the URL names no database that a journal can lie in.
    """
    if place == NONE:
        return None
    folder = Path("journal") if "://" in place else Path(place).parent
    config = Config(url=place, spool=folder / "spool")
    return Journal(config, redact=lambda text: redact(text).text)
