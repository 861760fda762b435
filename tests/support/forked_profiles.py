"""`limbeck` whose measured models are forked processes, for tests that judge no figure of theirs.

A fresh interpreter for each measured model takes seconds.
"""

import multiprocessing
from types import SimpleNamespace

from limbeck.evaluation.profiling import profile


def fork_profiles() -> None:
    """Has this process fork the models that it measures."""
    profile.multiprocessing = SimpleNamespace(
        get_context=lambda method: multiprocessing.get_context("fork")
    )
    # Forked processes hold each other's pipes, so that closing one's own does not end them.
    profile.STOP_SECONDS = 0.05


if __name__ == "__main__":
    from limbeck.cli.main import app

    fork_profiles()
    app()
