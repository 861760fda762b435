"""What every command shares: its options, its errors as one message, JSON and wide tables."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from limbeck.contracts.errors import LaunchError, LimbeckError
from limbeck.env.interrupts import catch_interrupts
from limbeck.env.ranks import process_index

REPORT_COLUMNS = 130
"""The width of reports where there is no terminal."""
EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "accelerate": "train",
    "peft": "train",
    "huggingface_hub": "train",
    "onnx": "train",
    "threadpoolctl": "train",
    "httpx2": "train",
    "datasets": "data",
    "pyarrow": "data",
    "PIL": "train",
    "chardet": "data",
    "chardetng_py": "data",
    "ftfy": "data",
    "datasketch": "data",
    "ahocorasick": "data",
    "sklearn": "evaluate",
    "rapidfuzz": "evaluate",
    "sacrebleu": "evaluate",
    "optuna": "tune",
    "scipy": "tune",
    "lm_eval": "harness",
    "gguf": "gguf",
    "xllamacpp": "gguf",
    "sqlalchemy": "serve",
    "psycopg": "postgres",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "prometheus_client": "serve",
}
"""Packages to the extra of `pip install limbeck[...]` that installs them."""

RecipePath = Annotated[Path, typer.Argument(help="A recipe: YAML, one entry per artifact.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="ENTRY.FIELD=VALUE", help="Change any field of any entry."),
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Turn what a user can cause into one message and an exit code."""
    catch_interrupts()
    try:
        yield
    except LimbeckError as error:
        if process_index() > 0 and not isinstance(error, LaunchError):
            raise typer.Exit(1) from None  # the first process has met it too, and tells it
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]{type(error).__name__}[/] ", end="", highlight=False
        )
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        Console(stderr=True, soft_wrap=True).print(
            f"this command needs {error.name}; install it with: pip install 'limbeck[{extra}]'",
            markup=False,
            highlight=False,
        )
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True, quiet=process_index() > 0).print(
            "\nstopped; the same command goes on from here", markup=False
        )
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        message = describe_os_error(error)
        if not message:
            raise
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
        raise typer.Exit(1) from None


def describe_os_error(error: OSError) -> str:
    """What of the user's own stopped a command, and what to do; '' where it is a bug."""
    place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    if isinstance(error, PermissionError) and place:
        return f"{place}permission denied; ask its owner, or name a place that is yours"
    if error.errno == errno.EROFS:
        return f"{place}nothing can be written there; name another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}the disk is full; free some of it, and give the same command again"
    return ""


def print_json(value: Any) -> None:
    """Indented JSON, Chinese as it is."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def open_screen(columns: int) -> Console:
    """The terminal, or text of that many columns: a file or a pipe has no width of its own."""
    return Console() if sys.stdout.isatty() else Console(width=columns)


def show_event(name: str, text: str) -> None:
    """One line of what happens to an entry, beside the output."""
    console = Console(stderr=True)
    console.print(f"[bold]{name}[/]: ", end="", highlight=False)
    console.print(text, highlight=False, markup=False)


def show_note(text: str) -> None:
    """One line of what a run will do of its own accord, beside the output."""
    Console(stderr=True).print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)
