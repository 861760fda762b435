"""The commands `journal show`, `verify`, `export` and `forget`."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from limbeck.cli.console import AsJson, print_json, report_user_errors

JOURNAL = "journal/journal.sqlite"
Url = Annotated[
    str,
    typer.Option(
        "--journal",
        envvar="LIMBECK_JOURNAL",
        metavar="FILE|URL",
        help="A file of SQLite, or postgresql://USER@HOST/NAME.",
    ),
]
Since = Annotated[
    datetime | None, typer.Option(help="From this day or moment on (2026-11-24T15:30).")
]
Until = Annotated[datetime | None, typer.Option(help="Before this day or moment.")]
Tiers = Annotated[list[str], typer.Option("--tier", help="Answered by this tier; repeatable.")]
Statuses = Annotated[
    list[str],
    typer.Option(
        "--status",
        help="Ended so (answered, declined, withheld, failed, cancelled); repeatable.",
    ),
]
FeedbackKinds = Annotated[
    list[str],
    typer.Option(
        "--feedback",
        help="With this feedback (up, down, corrected, commented, reviewed, none); repeatable.",
    ),
]

journal = typer.Typer(help="A service's journal: show, verify, export, forget.")


@journal.command()
def show(
    url: Url = JOURNAL,
    since: Since = None,
    until: Until = None,
    tier: Tiers = [],  # noqa: B006 (typer copies it)
    status: Statuses = [],  # noqa: B006
    feedback: FeedbackKinds = [],  # noqa: B006
    exchange: Annotated[str, typer.Option("--id", help="This one exchange.")] = "",
    review: Annotated[
        bool, typer.Option("--review", help="Only what a reviewer should look at, and why.")
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only copies that a candidate answered unseen.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most exchanges, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show exchanges, the newest first, after what all that were chosen count up to.

    ```
    limbeck journal show --since 2026-11-24 --feedback down
    limbeck journal show --review --limit 50 --json
    ```
    """
    with report_user_errors():
        from limbeck.cli.journal_tables import choose, open_journal, print_rows

        with open_journal(url) as engine:
            chosen = choose(
                since, until, tiers=tier, statuses=status, feedback=feedback, exchange=exchange
            )
            choice = replace(chosen, shadows="only" if shadow else "none")
            print_rows(engine, choice, limit=limit, only_review=review, as_json=as_json)


@journal.command()
def verify(
    url: Url = JOURNAL,
    expect: Annotated[
        str, typer.Option(metavar="SEQ:HASH", help="The head that an earlier check printed.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check every row against the hash chain; the exit code is 1 where one does not fit.

    Keep the head that is printed elsewhere: only with it is a journal noticed whose last rows were
    cut off.

    ```
    limbeck journal verify
    limbeck journal verify --journal postgresql://limbeck@db/journal --expect 120:9f3c...
    ```
    """
    with report_user_errors():
        from limbeck.cli.journal_tables import open_journal, print_verdict

        with open_journal(url) as engine:
            if not print_verdict(engine, expect=expect, as_json=as_json):
                raise typer.Exit(1)


@journal.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    to: Annotated[
        Literal["corpus", "label-studio", "argilla"],
        typer.Option(help="For the source `journal` of `prepare`, or in another tool's shape."),
    ] = "corpus",
    url: Url = JOURNAL,
    since: Since = None,
    until: Until = None,
    tier: Tiers = [],  # noqa: B006
    status: Statuses = [],  # noqa: B006
    feedback: FeedbackKinds = [],  # noqa: B006
) -> None:
    """Write exchanges with their feedback to a file, the oldest first.

    ```
    limbeck journal export feedback.jsonl --feedback corrected --feedback up
    limbeck journal export tasks.json --to label-studio --feedback down
    ```
    """
    with report_user_errors():
        from limbeck.cli.journal_tables import choose, open_journal, write_export

        with open_journal(url) as engine:
            choice = choose(
                since, until, tiers=tier, statuses=status, feedback=feedback, exchange=""
            )
            write_export(engine, choice, path, shape=to)


@journal.command()
def forget(
    older_than_days: Annotated[
        float, typer.Option(min=0, help="Every exchange older than that; 0: none by age.")
    ] = 0.0,
    exchange: Annotated[str, typer.Option("--id", help="This one exchange.")] = "",
    by: Annotated[str, typer.Option(help="Who decides; by default the user.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    url: Url = JOURNAL,
    as_json: AsJson = False,
) -> None:
    """Erase what exchanges and their feedback say; their hashes stay, and the chain stays whole.

    ```
    limbeck journal forget --older-than-days 30
    limbeck journal forget --id chatcmpl-7f3a --reason "asked to"
    ```
    """
    with report_user_errors():
        from limbeck.cli.journal_tables import forget_rows

        count = forget_rows(
            url, older_than_days=older_than_days, exchange=exchange, by=by, reason=reason
        )
        print_json({"forgotten": count}) if as_json else typer.echo(f"forgotten: {count} rows")
