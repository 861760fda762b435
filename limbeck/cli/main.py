"""The door for people: run, plan, tune, check, show, list and ask.

Importing it loads no torch; each command imports what it needs when it is called. Left out: all
work, which the pipeline and the stages do.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from limbeck.cli.store import add_commands
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import LaunchError, LimbeckError
from limbeck.env.interrupts import watch_interrupts
from limbeck.env.ranks import process_index

app = typer.Typer(
    help="From a large teacher and a domain's questions to small models for cloud, edge and phone.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
COMMANDS = {
    "pipeline": "limbeck.pipeline",
    "recipe": "limbeck.contracts.recipe",
    "artifacts": "limbeck.contracts.artifacts",
    "lineage": "limbeck.contracts.lineage",
    "listing": "limbeck.cli.list",
    "planning": "limbeck.planning",
    "asking": "limbeck.cli.ask",
    "table": "limbeck.evaluation.report.terminal",
    "tuning": "limbeck.tuning",
    "runtimes": "limbeck.runtimes",
    "bundle": "limbeck.runtimes.bundle",
}
WIDE_COLUMNS = 130
PLAN_COLUMNS = 100
RecipePath = Annotated[Path, typer.Argument(help="A recipe: YAML, one entry per artifact.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="ENTRY.FIELD=VALUE", help="Change any field of any entry."),
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def part(name: str) -> Any:
    """A module that a command needs, imported now."""
    return resolve(COMMANDS, name, what="command")


@contextmanager
def report_user_errors() -> Any:
    """Turn what a user can cause into one message and an exit code."""
    watch_interrupts()
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
    except KeyboardInterrupt:
        Console(stderr=True, quiet=process_index() > 0).print(
            "\nstopped; the same command goes on from here", markup=False
        )
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
) -> None:
    """Make every artifact of a recipe, or reuse what is made already.

    Stop it at any time; the same command goes on from the last saved step.
    """
    with report_user_errors():
        loaded = part("recipe").load_recipe(recipe, overrides=overrides)
        console = Console(stderr=True)

        def tell(name: str, text: str) -> None:
            console.print(f"[bold]{name}[/]: {text}", highlight=False)

        made = part("pipeline").run(loaded, runs=runs, report=tell)
        for artifact in made.values():
            if artifact.manifest.kind == "report":
                report = json.loads((artifact.path / "report.json").read_text(encoding="utf-8"))
                # A file or a pipe has no width of its own; cut columns would lose figures.
                out = Console() if sys.stdout.isatty() else Console(width=WIDE_COLUMNS)
                out.print(part("table").make_table(report))
                out.print(part("table").make_task_table(report))
                typer.echo(f"report: {runs / loaded.name / artifact.name / 'report.html'}")


@app.command()
def check(recipe: RecipePath, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Check types, bounds, unknown keys and wiring; every fault at once, with its place."""
    with report_user_errors():
        try:
            loaded = part("recipe").load_recipe(recipe, overrides=overrides)
            entries = part("pipeline").check(loaded)
            if loaded.tune:
                tuning = part("tuning")
                tuning.make_space(loaded, tuning.read_tuning(loaded), entries)
        except LimbeckError as error:
            if not as_json:
                raise
            _print_json(
                {
                    "recipe": str(recipe),
                    "faults": [
                        {"where": fault.where, "line": fault.line, "message": fault.message}
                        for fault in getattr(error, "faults", ())
                    ],
                }
            )
            raise typer.Exit(1) from None
        order = [
            {
                "name": entry.name,
                "stage": entry.config.stage,
                "makes": entry.config.make,
                "from": [item.target for item in entry.references],
            }
            for entry in entries.values()
        ]
        if as_json:
            _print_json({"recipe": str(recipe), "faults": [], "entries": order})
            return
        for item in order:
            source = f" from {', '.join(item['from'])}" if item["from"] else ""
            typer.echo(f"{item['name']}: {item['stage']} makes a {item['makes']}{source}")
        typer.echo(f"{recipe}: no faults")


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What every model will cost, before any training: size, memory, time, and what it fits on.

    The cards are those of the recipe's key `plan`, by default two A100 of 40 GB to train and a T4
    of 16 GB to answer: --set plan.training.gpu=H100-80GB.
    """
    with report_user_errors():
        loaded = part("recipe").load_recipe(recipe, overrides=overrides)
        entries = part("pipeline").check(loaded)
        planned = part("planning").plan(entries, root=runs / loaded.name, assumed=loaded.plan)
        if as_json:
            _print_json(planned)
        else:
            out = Console() if sys.stdout.isatty() else Console(width=PLAN_COLUMNS)
            out.print(part("planning").draw(planned))


@app.command()
def tune(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    out: Annotated[
        str, typer.Option(help="Folder of study and report; by default tune in the recipe's run.")
    ] = "",
    trials: Annotated[
        int, typer.Option(min=0, help="Trials in all, those done before counted; 0: tune.trials.")
    ] = 0,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds after which no trial starts; 0: no limit.")
    ] = 0.0,
) -> None:
    """Search a distillation's settings; leaves a report and the winning recipe, which runs.

    The recipe's key `tune` says what is searched:

        tune: {stage: student, trials: 20, budget: {max_mib: 4}}

    searches temperature, divergence, weights, layer map and learning rate of the distill entry
    `student`; `search: {objective.temperature: {low: 1.5, high: 3.0}}` names paths instead. A trial
    trains the entry and is judged on validation records, never on test questions; hopeless ones
    stop early. Stop it at any time; the same command goes on with the same study.
    """
    with report_user_errors():
        loaded = part("recipe").load_recipe(recipe, overrides=overrides)
        console = Console(stderr=True)

        def tell(name: str, text: str) -> None:
            console.print(f"[bold]{name}[/]: ", end="", highlight=False)
            console.print(text, highlight=False, markup=False)

        tuning = part("tuning")
        folder = Path(out) if out else runs / loaded.name / "tune"
        found = tuning.search(
            loaded, runs=runs, folder=folder, trials=trials, timeout_seconds=timeout, tell=tell
        )
        winning = tuning.write_report(found)
        screen = Console() if sys.stdout.isatty() else Console(width=WIDE_COLUMNS)
        screen.print(tuning.make_table(found))
        typer.echo(f"report: {folder / 'report.html'}")
        tuning.check_outcome(found)
        if winning is not None:
            typer.echo(f"winner: limbeck run {winning}")


@app.command()
def show(
    artifact: Annotated[Path, typer.Argument(help="An artifact's folder, as runs/demo/int8.")],
    as_json: AsJson = False,
) -> None:
    """An artifact's manifest, its lineage up to the sources, and its metrics."""
    with report_user_errors():
        found = part("artifacts").read_artifact(artifact)
        (ancestry,) = part("lineage").trace_lineage([found])
        listing = part("listing")
        if as_json:
            _print_json(listing.describe_artifact(found, ancestry))
        else:
            Console().print(listing.draw_artifact(found, ancestry))


@app.command(name="list")
def list_names(
    what: Annotated[
        str, typer.Argument(help="objectives, criteria, runtimes, sources, tasks, packs, ...")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """What recipes can name: stages, objectives, criteria, runtimes, sources, tasks, packs."""
    with report_user_errors():
        listing = part("listing")
        found = listing.list_names(what)
        if as_json:
            _print_json(found)
        else:
            Console().print(listing.draw_names(found))


@app.command()
def ask(
    model: Annotated[Path, typer.Argument(help="A checkpoint or bundle, as runs/demo/int8.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    images: Annotated[
        list[Path], typer.Option("--image", help="An image that the question is about.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 200,
) -> None:
    """Ask a model; the answer streams, and an unsure model says so."""
    with report_user_errors():
        answerer = part("runtimes").open_answerer(model, num_threads=threads)
        asking = part("asking")
        for piece in asking.stream_answer(
            answerer,
            question,
            max_new_tokens=max_new_tokens,
            images=images,
            disclaimer=part("bundle").read_disclaimer(model),
        ):
            typer.echo(piece, nl=False)
        typer.echo()


add_commands(app, guard=report_user_errors)


@app.callback()
def setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    """Set up logging before any command."""
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
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


main: Callable[[], Any] = app
