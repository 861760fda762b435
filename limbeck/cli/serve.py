"""The commands `serve` and `keys`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.console import Overrides, Runs, report_user_errors, show_note


def serve(
    target: Annotated[
        Path,
        typer.Argument(
            help="A recipe that has been run, a folder (a bundle or checkpoint), or a GGUF file."
        ),
    ],
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; without it, only on this machine.")
    ] = None,
    journal: Annotated[
        str,
        typer.Option(
            envvar="LIMBECK_JOURNAL",
            metavar="FILE|URL|none",
            help="Where questions and answers are kept, with what identifies a person taken out: a "
            "file of SQLite, or postgresql://USER@HOST/NAME.",
        ),
    ] = "journal/journal.sqlite",
    log: Annotated[
        str,
        typer.Option(
            metavar="text|json|none",
            help="A line for each request, on stderr: for people, for programs, or none; questions "
            "and answers are never in it.",
        ),
    ] = "text",
) -> None:
    """Serve models: a page for people, and OpenAI's protocol for programs.

    ```
    limbeck serve recipes/demo.yaml
    limbeck serve runs/demo/bundle --port 8080
    limbeck serve model.gguf
    limbeck serve mine.yaml --host 0.0.0.0 --keys keys.json
    ```

    A recipe's key `serve` lists its tiers, from the largest to the smallest:

        serve: {tiers: [{name: cloud, model: teacher}, {name: mobile, model: bundle}]}

    Without it, the last bundle or checkpoint of the recipe is served. Clients name a tier as their
    model, or `auto`: the smallest one answers, and where it is not sure, the next larger one.
    Ctrl-C or SIGTERM finishes what is being answered, then ends; a second one ends at once.
    """
    with report_user_errors():
        from limbeck.cli.model_source import TierModels
        from limbeck.cli.served_models import (
            describe_tiers,
            find_facts,
            find_models,
            find_router,
            read_serving,
        )
        from limbeck.contracts.errors import DataError
        from limbeck.serving.api.app import make_app
        from limbeck.serving.journal.open import open_journal
        from limbeck.serving.keys import Keys
        from limbeck.serving.log import read_format, write_log
        from limbeck.serving.open import open_service
        from limbeck.serving.remote_tiers import check_not_itself
        from limbeck.serving.rollout.follow import Rollout
        from limbeck.serving.server import Server, bind, check_address

        form = read_format(log)
        config, root = read_serving(target, overrides=overrides, runs=runs)
        source = TierModels(root=root, runs=runs)
        models = find_models(config, source=source)
        facts = find_facts(config, root=root)
        known = Keys(keys)
        check_address(host, keys=known)
        check_not_itself(config, host=host, port=port)
        router = find_router(config, root=root)
        service = open_service(config, models=models, router=router, facts=facts)
        try:
            socket = bind(host, port)
        except OSError as error:
            raise DataError(
                f"cannot listen at {host}:{port} ({error.strerror}); name another --port or --host"
            ) from None
        kept = open_journal(journal)
        rollout = Rollout(service, source=source)
        admission = make_app(service, config=config, keys=known, journal=kept, rollout=rollout)
        server = Server(admission, drain_seconds=config.limits.drain_seconds)
        for note in describe_tiers(service, models=models, router=router):
            show_note(note)
        url = f"http://{host}:{socket.getsockname()[1]}/"
        typer.echo(url)
        with write_log(form, to=sys.stderr):
            try:
                with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                    runner.run(server.serve([socket]))
            finally:
                if kept is not None:
                    kept.close()


def keys(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: Annotated[Path, typer.Option(help="The file of keys.")] = Path("keys.json"),
    scopes: Annotated[
        list[str], typer.Option("--scope", help="chat, feedback, review, metrics or admin.")
    ] = ["chat", "feedback"],  # noqa: B006
) -> None:
    """Make an API key: it is printed once, and only its hash is kept.

    ```
    limbeck keys ward-7 --file keys.json
    limbeck keys prometheus --file keys.json --scope metrics
    ```

    A running service reads the file again when it changes: delete a line to withdraw its key.
    """
    with report_user_errors():
        from limbeck.serving.keys import add_key, read_scopes

        typer.echo(add_key(file, name=name, scopes=read_scopes(scopes)))
