"""The commands `store list`, `store gc`, `store verify`, `promote`, `rollback` and `history`."""

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.console import AsJson, Runs, report_user_errors

ServedName = Annotated[str, typer.Argument(help="The name that a model is served under.")]
By = Annotated[str, typer.Option(help="Who decides; by default the user of this process.")]
KeepDays = Annotated[
    float, typer.Option(min=0, help="Keep for so many days after its last use what nothing needs.")
]
RUNS = Path("runs")
KEEP_DAYS = 14.0
"""As long as git keeps what no branch reaches."""

store = typer.Typer(help="The artifact store: list, gc, verify.", no_args_is_help=True)


@store.command(name="list")
def list_artifacts(runs: Runs = RUNS, as_json: AsJson = False) -> None:
    """List every artifact: key, names that point at it, size, and whether anything needs it.

    ```
    limbeck store list
    ```
    """
    from limbeck.cli.store_tables import print_listing

    with report_user_errors():
        print_listing(runs, keep_days=KEEP_DAYS, as_json=as_json)


@store.command()
def gc(
    runs: Runs = RUNS,
    keep_days: KeepDays = KEEP_DAYS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no name and no served model reaches, and print what that frees.

    To let an artifact go, delete the name that points at it first.

    ```
    limbeck store gc --dry-run
    limbeck store gc --keep-days 0
    ```
    """
    from limbeck.cli.store_tables import print_collected

    with report_user_errors():
        print_collected(runs, keep_days=keep_days, dry_run=dry_run, as_json=as_json)


@store.command()
def verify(runs: Runs = RUNS, as_json: AsJson = False) -> None:
    """Hash every file again; the exit code is 1 where one differs from its manifest.

    ```
    limbeck store verify
    ```
    """
    from limbeck.cli.store_tables import print_damage

    with report_user_errors():
        if not print_damage(runs, as_json=as_json):
            raise typer.Exit(1)


def promote(
    name: ServedName,
    artifact: Annotated[Path, typer.Argument(help="A checkpoint or bundle of the store.")],
    report: Annotated[Path | None, typer.Option(help="The report of the gate.")] = None,
    by: By = "",
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Name it the candidate; it does not answer yet.")
    ] = False,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Make an artifact the champion of a served name: the model that answers under it.

    ```
    limbeck promote triage runs/demo/bundle --report runs/demo/report
    limbeck promote triage runs/demo/bundle --candidate
    ```
    """
    from limbeck.cli.store_tables import open_registry, print_event, user

    with report_user_errors():
        event = open_registry(runs).promote(
            name,
            artifact,
            role="candidate" if candidate else "champion",
            report=report,
            by=by or user(),
        )
        print_event(event, name, as_json=as_json)


def rollback(name: ServedName, by: By = "", runs: Runs = RUNS, as_json: AsJson = False) -> None:
    """Make the previous champion of a served name answer again.

    ```
    limbeck rollback triage
    ```
    """
    from limbeck.cli.store_tables import open_registry, print_event, user

    with report_user_errors():
        event = open_registry(runs).rollback(name, by=by or user())
        print_event(event, name, as_json=as_json)


def history(
    name: ServedName,
    at: Annotated[
        str, typer.Option(help="What answered on 2026-11-24, or at 2026-11-24T15:30.")
    ] = "",
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """List everything that happened to a served name, or what answered at a time.

    ```
    limbeck history triage
    limbeck history triage --at 2026-11-24
    ```
    """
    from limbeck.cli.store_tables import print_history

    with report_user_errors():
        print_history(runs, name, at=at, as_json=as_json)
