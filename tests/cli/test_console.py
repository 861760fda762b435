"""What of the machine stops a command: one message, and no stack trace."""

import errno

import pytest
import typer

from limbeck.cli.console import report_user_errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b.yaml"), "a/b.yaml: permission"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "/a: nothing can be written there"),
    ],
)
def test_what_of_the_machine_stops_a_command_is_named(error, message, capsys):
    with pytest.raises(typer.Exit), report_user_errors():
        raise error
    assert message in capsys.readouterr().err


def test_other_errors_of_the_system_are_bugs():
    with pytest.raises(OSError, match="bad file"), report_user_errors():
        raise OSError(errno.EBADF, "bad file descriptor")
