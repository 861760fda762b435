"""`limbeck evaluate`: other people's yardsticks, lm-evaluation-harness and a judge.

The stage `evaluate` of a recipe is Limbeck's own, with times, memory and floors.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.console import AsJson, open_screen, print_json, report_user_errors
from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject

WIDE_COLUMNS = 130
HARNESS = "Harness"


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Checkpoints and bundles, or a corpus to export."),
    ],
    harness: Annotated[
        str,
        typer.Option(
            metavar="TASKS",
            help="Tasks of lm-evaluation-harness, parted by commas: names, groups, patterns.",
            rich_help_panel=HARNESS,
        ),
    ] = "",
    task_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of task files (*.yaml) of your own; data files lie beside them.",
            rich_help_panel=HARNESS,
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            min=0, help="Documents of each task, its first; 0: all.", rich_help_panel=HARNESS
        ),
    ] = 0,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat/--no-chat",
            help="Ask by the model's own chat template, or as plain text.",
            rich_help_panel=HARNESS,
        ),
    ] = True,
    num_fewshot: Annotated[
        int,
        typer.Option(
            min=-1,
            help="Worked examples before each question; -1: as the task says.",
            rich_help_panel=HARNESS,
        ),
    ] = -1,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Requests at once.", rich_help_panel=HARNESS)
    ] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.", rich_help_panel=HARNESS)] = 1,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Let tasks download what they need.", rich_help_panel=HARNESS
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the result here, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models by lm-evaluation-harness.

    Any checkpoint and any bundle, offline:

        limbeck evaluate runs/my/student runs/my/bundle --harness my_task --task-folder tasks

    A task is one YAML file, as lm-evaluation-harness documents it, with its data beside it:

        task: my_task
        dataset_path: json
        dataset_kwargs: {data_files: {test: questions.jsonl}}
        test_split: test
        output_type: multiple_choice
        doc_to_text: "{{question}}"
        doc_to_choice: options
        doc_to_target: answer

    The thousands of tasks that lm-evaluation-harness brings run too; most download their data,
    which needs --online. What the numbers mean beside Limbeck's own: docs/evaluation.md.
    """
    with report_user_errors():
        if not harness:
            raise DataError(
                "name what to measure by: --harness TASKS, such as --harness my_task "
                "--task-folder tasks"
            )
        # Read when the libraries are imported; the command shows its own progress.
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        from limbeck.harness import display
        from limbeck.harness.run import Settings, run_harness

        report = run_harness(
            paths,
            tasks=[name.strip() for name in harness.split(",") if name.strip()],
            settings=Settings(
                prompts="chat" if chat else "plain",
                num_fewshot=None if num_fewshot < 0 else num_fewshot,
                limit=limit or None,
                batch_size=batch_size,
                num_threads=threads,
                task_folder=task_folder,
                online=online,
            ),
        )
        content = display.as_json(report)
        _write(output, content=content)
        for warning in display.list_warnings(report):
            typer.echo(warning, err=True)
        if as_json:
            print_json(content)
        else:
            open_screen(WIDE_COLUMNS).print(display.make_table(report))


def _write(output: Path | None, *, content: JsonObject) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
