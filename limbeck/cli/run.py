"""The commands on a recipe: run, check, plan and tune.

Each imports what it needs when it is called, so that `--help` and the other commands load no torch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from limbeck.cli.console import (
    REPORT_COLUMNS,
    AsJson,
    Overrides,
    RecipePath,
    Runs,
    open_screen,
    print_json,
    report_user_errors,
    show_event,
    show_note,
)
from limbeck.contracts.errors import Fault, LimbeckError, RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.serialization import to_json

PLAN_COLUMNS = 100
NOT_STATED = Path()
"""Of a path that may be left out."""


def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    until: Annotated[
        str, typer.Option(metavar="ENTRY", help="Make only this entry and what it needs.")
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ENTRY",
            help="Make this entry and what follows from it; what it needs is taken as it stands.",
        ),
    ] = "",
) -> None:
    """Make every artifact of a recipe, or reuse what is made already.

    Stop it at any time; the same command goes on from the last saved step.

    ```
    limbeck run mine.yaml
    limbeck run mine.yaml --until student
    limbeck run mine.yaml --from pruned
    limbeck run mine.yaml --set student.training.max_steps=2000
    ```
    """
    with report_user_errors():
        from limbeck.contracts.tier_router import read_router
        from limbeck.evaluation.report import terminal
        from limbeck.evaluation.report.build import read_report
        from limbeck.pipeline.run import run as run_recipe

        loaded = load_recipe(recipe, overrides=overrides)
        made = run_recipe(
            loaded, runs=runs, until=until, start=start, report=show_event, note=show_note
        )
        for artifact in made.values():
            if artifact.manifest.kind == "router":
                promise = read_router(artifact.path).file.promise
                show_note(f"{artifact.name}: {promise.describe()}")
            if artifact.manifest.kind == "report":
                report = read_report(artifact.path / "report.json")
                screen = open_screen(REPORT_COLUMNS)
                screen.print(terminal.make_table(report))
                screen.print(terminal.make_task_table(report))
                for make_table in (
                    terminal.make_score_table,
                    terminal.make_declined_table,
                    terminal.make_routing_table,
                ):
                    if table := make_table(report):
                        screen.print(table)
                typer.echo(f"report: {runs / loaded.name / artifact.name / 'report.html'}")


def check(recipe: RecipePath, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Check a recipe: types, bounds, unknown keys, missing files; all faults at once, with lines.

    Nothing is made. It prints the entries in the order in which they would be made.

    ```
    limbeck check mine.yaml
    limbeck check mine.yaml --set student.objective.temperature=3
    ```
    """
    with report_user_errors():
        from limbeck.pipeline.check import check as check_recipe
        from limbeck.pipeline.entry import names_models
        from limbeck.pipeline.memory import check_memory

        try:
            loaded = load_recipe(recipe, overrides=overrides)
            notes: list[str] = []
            entries = check_recipe(loaded, note=notes.append)
            if names_models(entries):
                check_memory(loaded, entries)
            if loaded.tune:
                from limbeck import tuning

                tuning.make_space(loaded, tuning.read_tuning(loaded), entries)
            if loaded.serve:
                from limbeck.cli.served_models import check_serving

                check_serving(loaded, entries)
        except LimbeckError as error:
            if not as_json:
                raise
            print_json(
                {
                    "recipe": str(recipe),
                    "faults": [
                        {"where": fault.where, "line": fault.line, "message": fault.message}
                        for fault in (error.faults if isinstance(error, RecipeError) else ())
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
            print_json({"recipe": str(recipe), "faults": [], "notes": notes, "entries": order})
            return
        for item in order:
            source = f" from {', '.join(item['from'])}" if item["from"] else ""
            typer.echo(f"{item['name']}: {item['stage']} makes a {item['makes']}{source}")
        for text in notes:
            show_note(text)
        typer.echo(f"{recipe}: no faults")


def plan(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe; left out where only a target is stated.")
    ] = Path(),
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    target: Annotated[
        Path, typer.Option(help="A file with a device's budgets: bytes, memory, speed.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Print what every model will cost, before any training: size, memory, time, fitting GPUs.

    The GPUs are those of the recipe's key `plan`, by default two A100 of 40 GB to train and a T4
    of 16 GB to answer.

    ```
    limbeck plan mine.yaml
    limbeck plan mine.yaml --set plan.training.gpu=H100-80GB --set plan.training.count=8
    limbeck plan --target recipes/targets/phone.yaml
    limbeck plan mine.yaml --target recipes/targets/phone.yaml --set target.disk_bytes=200000000
    ```

    With `--target` it prints what fits a device instead: the target's own model, or those of the
    recipe, in each number format, and the designs that keep every budget.
    """
    with report_user_errors():
        from limbeck import planning
        from limbeck.pipeline.check import check as check_recipe

        if NOT_STATED in (recipe, target) and recipe == target:
            raise RecipeError("plan", [Fault("recipe", "name a recipe, a --target, or both")])
        for_target = tuple(item for item in overrides if item.startswith("target."))
        device = None
        if target != NOT_STATED:
            device = planning.load_target(target, overrides=for_target)
            overrides = [item for item in overrides if item not in for_target]
        if recipe == NOT_STATED:
            assert device is not None
            _print(planning.plan_target(target.stem, device), planning.draw_target, as_json)
            return
        loaded = load_recipe(recipe, overrides=overrides)
        entries = check_recipe(loaded, note=show_note)
        root = runs / loaded.name
        if device is None:
            _print(planning.plan(entries, root=root, assumed=loaded.plan), planning.draw, as_json)
            return
        models = planning.list_models(entries, root=root, assumed=loaded.plan)
        _print(planning.plan_models(target.stem, device, models), planning.draw_target, as_json)


def _print(planned: object, draw: Callable[..., RenderableType], as_json: bool) -> None:
    if as_json:
        print_json(to_json(planned))
    else:
        open_screen(PLAN_COLUMNS).print(draw(planned))


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
    quick_check: Annotated[
        bool,
        typer.Option(
            "--quick-check",
            help="Search nothing: compare the student with its teacher and without, for about two "
            "minutes (--timeout).",
        ),
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each student of a quick check.")] = 60,
) -> None:
    """Search the settings of a distillation; writes a report and the winning recipe.

    ```
    limbeck tune mine.yaml --set tune.stage=student --trials 12 --timeout 3600
    limbeck tune mine.yaml --quick-check
    ```

    The recipe's key `tune` sets what is searched:

        tune: {stage: student, trials: 20, budget: {max_mib: 4}}

    searches temperature, divergence, weights, layer map and learning rate of the distill entry
    `student`; `search: {objective.temperature: {low: 1.5, high: 3.0}}` names fields instead. A
    trial trains the entry and is scored on validation records, never on test questions; bad trials
    stop early. The best and the recipe's own settings are trained again with fresh seeds, which
    decide; "none is better" is an answer. Stop it at any time; the same command goes on.
    """
    with report_user_errors():
        from limbeck import tuning

        loaded = load_recipe(recipe, overrides=overrides)
        if quick_check:
            folder = Path(out) if out else runs / loaded.name / "quick-check"
            checked = tuning.quick_check(
                loaded,
                runs=runs,
                folder=folder,
                steps=steps,
                seconds=timeout or tuning.QUICK_SECONDS,
                report=show_event,
            )
            page = tuning.write_quick_check(checked, folder=folder)
            typer.echo(tuning.make_page(checked))
            typer.echo(f"report: {page}")
            return
        folder = Path(out) if out else runs / loaded.name / "tune"
        found = tuning.search(
            loaded,
            runs=runs,
            folder=folder,
            trials=trials,
            timeout_seconds=timeout,
            report=show_event,
        )
        winning = tuning.write_report(found)
        screen = open_screen(REPORT_COLUMNS)
        screen.print(tuning.make_table(found))
        confirmed = tuning.make_confirmed_table(found)
        if confirmed is not None:
            screen.print(confirmed)
        for warning in tuning.warn(found):
            show_note(warning.en)
        typer.echo(f"report: {folder / 'report.html'}")
        tuning.check_outcome(found)
        typer.echo(tuning.explain(found).en)
        if winning is not None:
            typer.echo(f"winner: limbeck run {winning}")
