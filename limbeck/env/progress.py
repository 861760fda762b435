"""Progress of long work: a live bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from limbeck.env.interrupts import raise_lost_interrupt
from limbeck.env.ranks import process_index

PLAIN_INTERVAL_SECONDS = 10.0
WIDE_COLUMNS = 160
Advance = Callable[..., None]
"""`advance(num, note="")`: so many more units are done."""


@contextmanager
def track(title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress from `done` to `total`, with the rate and the remaining time.

    Of several launched processes, the first one shows it.
    """
    console = Console(stderr=True)
    if process_index() > 0:
        yield from _silent()
    elif console.is_terminal:
        yield from _live(console, title, total=total, unit=unit, done=done)
    else:
        yield from _plain(title, total=total, unit=unit, done=done)


def print_line(line: str) -> None:
    """Show a line beside the bars, from the first of several launched processes."""
    raise_lost_interrupt()
    if process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def print_table(table: Table) -> None:
    """Show a table beside the bars, from the first of several launched processes.

    Where no terminal gives a width, it is as wide as its content needs to be.
    """
    raise_lost_interrupt()
    if process_index() == 0:
        console = Console(stderr=True)
        console = console if console.is_terminal else Console(stderr=True, width=WIDE_COLUMNS)
        console.print(table)


def _silent() -> Iterator[Advance]:
    def advance(num: int = 1, note: str = "") -> None:
        raise_lost_interrupt()

    yield advance


def _live(console: Console, title: str, *, total: int, unit: str, done: int) -> Iterator[Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done, rate="", note="")
        count = 0

        def advance(num: int = 1, note: str = "") -> None:
            nonlocal count
            raise_lost_interrupt()
            count += num
            rate = count / max(time.monotonic() - started, 1e-9)
            progress.update(task, advance=num, rate=f"{rate:,.1f} {unit}/s", note=note)

        yield advance


def _plain(title: str, *, total: int, unit: str, done: int) -> Iterator[Advance]:
    started = last = time.monotonic()
    count = 0
    print(f"{title}: {done}/{total} {unit}", file=sys.stderr, flush=True)
    line = ""

    def show() -> None:
        rate = count / max(time.monotonic() - started, 1e-9)
        left = (total - done - count) / max(rate, 1e-9)
        print(
            f"{title}: {done + count}/{total} {unit}, {rate:,.1f} {unit}/s, "
            f"{max(left, 0):,.0f} s left{line}",
            file=sys.stderr,
            flush=True,
        )

    def advance(num: int = 1, note: str = "") -> None:
        nonlocal count, last, line
        raise_lost_interrupt()
        count += num
        line = f", {note}" if note else ""
        if time.monotonic() - last >= PLAIN_INTERVAL_SECONDS:
            last = time.monotonic()
            show()

    yield advance
    show()
