"""The commands of `limbeck`; importing them loads no torch, and each imports what it needs."""

import io
import logging
import os
import platform
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

import limbeck
from limbeck.cli.ask import ask
from limbeck.cli.evaluate import evaluate
from limbeck.cli.journal import journal
from limbeck.cli.list import list_command
from limbeck.cli.new import new
from limbeck.cli.run import check, plan, run, tune
from limbeck.cli.serve import keys, serve
from limbeck.cli.show import show
from limbeck.cli.store import history, promote, rollback, store

HELP = """From a large teacher and your questions to small models for cloud, edge and phone.

```
limbeck new mine.yaml --data mine.jsonl --teacher models/SmolLM2-135M-Instruct
limbeck run mine.yaml
limbeck ask runs/mine/bundle "..."
```

Each command explains itself with examples: limbeck run --help
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (new, check, plan, run, ask, serve):
    app.command(rich_help_panel="First steps")(command)
for command in (show, evaluate, tune, keys):
    app.command(rich_help_panel="A closer look")(command)
app.command(name="list", rich_help_panel="A closer look")(list_command)
app.add_typer(store, name="store", rich_help_panel="Keep and serve")
for command in (promote, rollback, history):
    app.command(rich_help_panel="Keep and serve")(command)
app.add_typer(journal, name="journal", rich_help_panel="Keep and serve")


def show_version(is_wanted: bool) -> bool:
    """Print which Limbeck this is, and which Python runs it."""
    if is_wanted:
        typer.echo(f"limbeck {limbeck.__version__} (Python {platform.python_version()})")
        raise typer.Exit
    return is_wanted


@app.callback()
def setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Set up logging and output before any command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or file that cannot show a character gets its number.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Endless spinning slows a busy machine many times over; no spinning halves a quiet one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when the libraries are imported; each command shows its own progress.
    for name in ("HF_HUB", "HF_DATASETS"):
        os.environ.setdefault(f"{name}_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


main: Callable[[], Any] = app
