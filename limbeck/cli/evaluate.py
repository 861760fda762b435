"""`limbeck evaluate`: other people's yardsticks, lm-evaluation-harness and a judging model.

The stage `evaluate` of a recipe is Limbeck's own, with times, memory and floors.
"""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from limbeck.cli.console import REPORT_COLUMNS, AsJson, open_screen, print_json, report_user_errors
from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject

HARNESS, EXPORT, JUDGE = "Harness", "A corpus's questions as harness tasks", "Judge"


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Models; or a corpus to export, a report to judge."),
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
        typer.Option(min=0, help="Documents of each task, or pairs to judge, the first; 0: all."),
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
    export_tasks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the questions of a corpus as task files here; it names the tasks.",
            rich_help_panel=EXPORT,
        ),
    ] = None,
    max_questions: Annotated[
        int, typer.Option(min=1, help="Of each task, as in a report.", rich_help_panel=EXPORT)
    ] = 400,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Of one answer, as in a report.", rich_help_panel=EXPORT)
    ] = 64,
    judge: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible server, up to its version: http://localhost:8000/v1.",
            rich_help_panel=JUDGE,
        ),
    ] = "",
    judge_model: Annotated[
        str, typer.Option(metavar="NAME", help="The judge's name there.", rich_help_panel=JUDGE)
    ] = "",
    judge_key: Annotated[
        str,
        typer.Option(
            metavar="VARIABLE",
            help="The environment variable that holds the API key.",
            rich_help_panel=JUDGE,
        ),
    ] = "",
    against: Annotated[
        tuple[str, str],
        typer.Option(
            metavar="A B", help="Two models of the report, by name.", rich_help_panel=JUDGE
        ),
    ] = ("", ""),
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the result here, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models by lm-evaluation-harness, or by a judging model.

    Any checkpoint and any bundle, offline, on tasks of your own:

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
    which needs --online. The questions of a corpus become such tasks:

        limbeck evaluate runs/my/corpus --export-tasks tasks/my

    A judge compares two models' answers in a report, each pair in both orders:

        limbeck evaluate runs/my/report --judge URL --judge-model NAME --against teacher student

    What the numbers mean beside Limbeck's own: docs/evaluation.md.
    """
    with report_user_errors():
        ways = {"--harness": bool(harness), "--export-tasks": export_tasks, "--judge": bool(judge)}
        chosen = [name for name, is_set in ways.items() if is_set]
        if len(chosen) != 1:
            raise DataError(
                f"found {' and '.join(chosen) or 'none'} of {', '.join(ways)}: name one, such as "
                "--harness my_task --task-folder tasks"
            )
        if harness:
            _run_harness(
                paths,
                tasks=harness,
                output=output,
                as_json=as_json,
                prompts="chat" if chat else "plain",
                num_fewshot=None if num_fewshot < 0 else num_fewshot,
                limit=limit or None,
                batch_size=batch_size,
                num_threads=threads,
                task_folder=task_folder,
                online=online,
            )
        elif export_tasks is not None:
            corpus = _one(paths, what="corpus")
            _export(corpus, export_tasks, questions=max_questions, tokens=max_new_tokens)
        else:
            settings: JsonObject = {
                "endpoint": {"url": judge, "model": judge_model, "key_variable": judge_key},
                "max_questions": limit,
            }
            report = _one(paths, what="report")
            _run_judge(report, against, settings=settings, output=output, as_json=as_json)


def _run_harness(
    models: list[Path], *, tasks: str, output: Path | None, as_json: bool, **settings: Any
) -> None:
    from limbeck.harness import display
    from limbeck.harness.run import Settings, run_harness

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    report = run_harness(models, tasks=names, settings=Settings(**settings))
    content = display.as_json(report)
    _write(output, content=content)
    for warning in display.list_warnings(report):
        typer.echo(warning, err=True)
    if as_json:
        print_json(content)
    else:
        open_screen(REPORT_COLUMNS).print(display.make_table(report))


def _export(corpus: Path, folder: Path, *, questions: int, tokens: int) -> None:
    from limbeck.contracts.corpus import Corpus
    from limbeck.harness.export_tasks import export_tasks

    done = export_tasks(
        Corpus(corpus), folder=folder, max_questions=questions, max_new_tokens=tokens
    )
    for name, num in done.num_questions.items():
        typer.echo(f"{folder / name}.yaml: {num:,} questions")
    for reason, num in done.left_out.items():
        typer.echo(f"left out: {num:,} {reason}, which lm-evaluation-harness cannot ask")
    names = ",".join(done.num_questions)
    typer.echo(f"limbeck evaluate MODEL... --harness {names} --task-folder {folder}")


def _run_judge(
    report: Path,
    models: tuple[str, str],
    *,
    settings: JsonObject,
    output: Path | None,
    as_json: bool,
) -> None:
    from limbeck.contracts.serialization import to_json
    from limbeck.judging.display import describe
    from limbeck.judging.judge import JudgeConfig
    from limbeck.judging.run import judge_folder, run_judge

    if not all(models) or not settings["endpoint"]["model"]:
        raise DataError("a judge needs --judge-model NAME and --against A B, two of the report")
    try:
        config = JudgeConfig.model_validate(settings)
    except ValueError as error:
        raise DataError(f"--judge, --judge-model or --judge-key: {error}") from None
    result = run_judge(report, models=models, config=config)
    content = cast(JsonObject, to_json(result))
    _write(output, content=content)
    if as_json:
        print_json(content)
        return
    for line in describe(result):
        typer.echo(line)
    folder = judge_folder(report, models=models, judge=result.judge)
    typer.echo(f"question by question: {folder / 'verdicts.jsonl'}")


def _one(paths: list[Path], *, what: str) -> Path:
    if len(paths) != 1:
        raise DataError(f"found {len(paths)} paths: expected one {what}")
    return paths[0]


def _write(output: Path | None, *, content: JsonObject) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
