"""`limbeck new`: a recipe for somebody's own file, after a look at what the file holds."""

import re
import shlex
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from limbeck.cli.console import open_screen, report_user_errors
from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.json_data import JsonObject

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from limbeck.drafting.findings import FileFindings
    from limbeck.drafting.rendering import RenderedRecord

NUM_SHOWN = 3
SHOWN_CHARS = 400
END_CHARS = 60
COLUMNS = 100
LANGUAGE = re.compile("([a-z]{2,3})?")


def new(
    recipe: Annotated[Path, typer.Argument(help="The recipe to write.")],
    data: Annotated[
        str,
        typer.Option(
            help="JSONL, JSON, CSV, TSV or Parquet; a folder of JSON or of splits; or "
            "ORGANISATION/NAME on the hub."
        ),
    ] = "",
    teacher: Annotated[
        str, typer.Option(help="The teacher: its folder, its name on the hub, or a GGUF file.")
    ] = "",
    student: Annotated[
        str, typer.Option(help="A smaller model to start from; by default a fresh one.")
    ] = "",
    task: Annotated[
        Literal["auto", "chat", "classify", "extract"],
        typer.Option(
            help="Free answers, labels, or lists and JSON; auto: labels where few are distinct."
        ),
    ] = "auto",
    language: Annotated[
        str, typer.Option(help="Of the answers: zh, en, de, ...; it decides what 2,5 mg means.")
    ] = "",
    question: Annotated[
        list[str] | None,
        typer.Option(help="The column of questions, where not found; again for one more of each."),
    ] = None,
    answer: Annotated[str, typer.Option(help="The column of answers, where not found.")] = "",
    separator: Annotated[
        str,
        typer.Option(help="With --task extract: what stands between the items of an answer."),
    ] = "",
    images: Annotated[
        str, typer.Option(help="The folder of the images that rows name, where not beside them.")
    ] = "",
    vision: Annotated[
        bool | None,
        typer.Option(
            "--vision/--no-vision",
            help="Whether the models learn to read images; by default where most rows have some.",
        ),
    ] = None,
    from_demo: Annotated[
        bool, typer.Option("--from-demo", help="Write the demo's recipe, to change it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that exists.")] = False,
) -> None:
    """Write a recipe for your own file, after printing what the file holds.

    Texts are left as they are. The recipe has comments; `limbeck run` makes what it names.

    ```
    limbeck new mine.yaml --data mine.jsonl --teacher models/SmolLM2-135M-Instruct
    limbeck new mine.yaml --data table.csv --question frage --answer antwort --teacher ...
    limbeck new demo.yaml --from-demo
    ```
    """
    with report_user_errors():
        if recipe.exists() and not force:
            raise DataError("exists; choose another name, or --force", path=recipe)
        if not recipe.parent.is_dir():
            raise DataError("its folder does not exist; make it first", path=recipe)
        if separator and task != "extract":
            raise DataError("--separator is for --task extract, whose answers are lists")
        if not LANGUAGE.fullmatch(language):
            raise DataError(f"--language {language!r}: write it as ISO 639 does: zh, en, de, ...")
        if from_demo:
            from limbeck.drafting.demo import read_demo

            recipe.write_text(read_demo(), encoding="utf-8")
        elif not data or not teacher:
            missing = (
                "--teacher, a model's folder, hub name or GGUF file" if data else "--data, a file"
            )
            raise DataError(f"also give {missing}; or take the demo's recipe with --from-demo")
        else:
            _write(
                recipe,
                NewOptions(
                    data,
                    teacher,
                    student,
                    task,
                    language=language,
                    question=tuple(question or ()),
                    answer=answer,
                    separator=separator,
                    images=images,
                    vision=vision,
                ),
            )
        typer.echo(f"\nwrote {recipe}; next:")
        for command, purpose in (
            ("check", "types and wiring"),
            ("plan", "memory and time, before any training"),
            ("run", "everything; it goes on where it stopped"),
        ):
            shown = f"  limbeck {command} {shlex.quote(str(recipe))}"
            typer.echo(f"{shown:<44}  # {purpose}")


@dataclass(frozen=True)
class NewOptions:
    """What the user named."""

    data: str
    teacher: str
    student: str
    task: Literal["auto", "chat", "classify", "extract"]
    language: str
    question: tuple[str, ...]
    """Columns of which a question is made, in order; empty: found."""
    answer: str
    separator: str
    """Between the items of answers that are lists; empty: found."""
    images: str
    """The folder of images; empty: beside the data."""
    vision: bool | None
    """Whether the models read images; None: by the file."""


def _write(recipe: Path, wanted: NewOptions) -> None:
    from limbeck.drafting.cut_students import can_be_cut, count_fit_records
    from limbeck.drafting.doubts import check_findings, find_doubts
    from limbeck.drafting.file_splits import describe_unused, held_out_sources, read_held_out
    from limbeck.drafting.images import choose_vision, describe_images
    from limbeck.drafting.models import open_named_model
    from limbeck.drafting.recipe import DraftOptions, draft
    from limbeck.drafting.rendering import (
        count_positions,
        describe_fresh_student,
        describe_long_records,
        measure_tokens,
        show_records,
        try_template,
    )
    from limbeck.drafting.sources import open_source
    from limbeck.drafting.vision import draft_vision
    from limbeck.models.chat import NO_TEMPLATE
    from limbeck.models.config_file import read_config
    from limbeck.models.tokenizers import has_template, load_tokenizer

    data, teacher = wanted.data, wanted.teacher
    screen = open_screen(COLUMNS)
    source, findings = _read(wanted, screen=screen)
    screen.print(draw_findings(findings, title=data))
    if wanted.task == "classify" and not findings.labels:
        raise DataError(
            "its answers are no labels: too many of them are distinct, or long; leave --task out, "
            "or name the column of labels with --answer",
            path=data,
        )
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        named = open_named_model(teacher, entry="published", scratch=scratch / "teacher")
        tokenizer, config = load_tokenizer(named.folder), read_config(named.folder)
        has_own_template = has_template(named.folder)
        is_cuttable = can_be_cut(named.folder, config=config)
        student = None
        if wanted.student:
            student = open_named_model(wanted.student, entry="start", scratch=scratch / "student")
            load_tokenizer(student.folder)
        start_config = None if student is None else read_config(student.folder)
    reads_images = choose_vision(findings, wanted=wanted.vision, data=data)
    note = describe_images(findings, reads_images=reads_images)
    if note:
        screen.print(f"\n{note}", markup=False, highlight=False)
    check_findings(findings, path=data)
    doubts = find_doubts(findings, open_source(source), recipe=recipe, language=wanted.language)
    held_out, left_out = read_held_out(held_out_sources(source, findings, data=data))
    for item in held_out:
        screen.print(item.describe(), markup=False, highlight=False)
    for doubt in filter(None, (*doubts, *left_out, describe_unused(data))):
        print_doubt(screen, doubt)
    if not has_own_template:
        print_doubt(screen, f"{teacher} {NO_TEMPLATE}")
    vision = draft_vision(findings, teacher=config, student=start_config) if reads_images else None
    readable = [
        replace(record, images=())
        for record in findings.records
        if reads_images or not record.images
    ]
    readable, refused = try_template(readable, tokenizer=tokenizer)
    if refused:
        print_doubt(screen, refused)
    print_rendered(screen, show_records(readable[:NUM_SHOWN], tokenizer=tokenizer), reader=teacher)
    lengths = measure_tokens(readable, tokenizer=tokenizer)
    configs = [config, *([] if start_config is None else [start_config])]
    positions = min(map(count_positions, configs))
    if lengths.records > positions:
        print_doubt(screen, describe_long_records(lengths.records, positions))
    numbers = [len(record.images) for record in findings.records] if vision else [0]
    tokens = vision.tokens_per_image if vision else 0
    most_images, mean_images = max(numbers) * tokens, tokens * sum(numbers) / len(numbers)
    num_fit_records = 0
    if is_cuttable:
        num_fit_records = count_fit_records(
            config, mean_tokens=lengths.mean, num_records=len(readable)
        )
    choices = DraftOptions(
        source,
        named.reference,
        "" if student is None else student.reference,
        describe_fresh_student(config),
        num_fit_records,
        entries={item.reference: item.entry for item in (named, student) if item and item.entry},
        language=wanted.language,
        longest_tokens=lengths.records + most_images,
        answer_tokens=lengths.answers,
        max_positions=positions,
        mean_tokens=lengths.mean + mean_images,
        vision=vision,
        held_out=[item.source for item in held_out],
        note=note,
    )
    title = f"{Path(data).name}: {len(findings.records):,} records, distilled from {teacher}."
    recipe.write_text(draft(findings, choices, title=title), encoding="utf-8")


def _read(wanted: NewOptions, *, screen: "Console") -> tuple[JsonObject, "FileFindings"]:
    """The source of the file, with the columns that are likely, and what it holds."""
    from limbeck.drafting.extraction import read_lists
    from limbeck.drafting.findings import read_findings
    from limbeck.drafting.hints import hint_at_option
    from limbeck.drafting.images import place_images
    from limbeck.drafting.question_parts import find_parts
    from limbeck.drafting.sources import (
        describe_source,
        explain_options,
        open_source,
        suggest_columns,
    )

    def read(source: JsonObject) -> "tuple[JsonObject, FileFindings]":
        if wanted.task == "extract":
            return read_lists(source, separator=wanted.separator)
        return source, read_findings(open_source(source))

    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(wanted.data).stem).strip("-") or "own"
    source = describe_source(
        wanted.data,
        question=wanted.question,
        answer=wanted.answer,
        name=name,
        image_folder=wanted.images,
    )
    try:
        try:
            source, findings = read(source)
        except ColumnsError as error:
            if "columns" in source:
                raise explain_options(error, source, path=wanted.data) from None
            source = suggest_columns(source, found=error.found, path=wanted.data)
            columns = source["columns"]
            screen.print(
                f"took column {columns['question'][0]!r} for the question and "
                f"{columns['answer']!r} for the answer; --question and --answer name others",
                markup=False,
                highlight=False,
            )
            source, findings = read(source)
    except DataError as error:
        raise DataError(f"{error}{hint_at_option(str(error), task=wanted.task)}") from None
    if wanted.task != "extract":
        source, findings, parts = find_parts(source, findings, with_context=not wanted.question)
        for part in parts:
            screen.print(part, markup=False, highlight=False)
    return place_images(source, findings), findings


def print_rendered(screen: "Console", records: "list[RenderedRecord]", *, reader: str) -> None:
    """Prints records as the reader's chat template renders them."""
    screen.print(f"\nas {reader} reads it", style="bold", markup=False, highlight=False, end="")
    screen.print(" (given, then learnt)", highlight=False)
    for item in records:
        cut = "[...] " if len(item.given) > SHOWN_CHARS else ""
        given = cut + item.given[-SHOWN_CHARS:]
        screen.print(given, style="dim", markup=False, highlight=False, end="")
        screen.print(shorten(item.learnt), style="bold", markup=False, highlight=False)
        screen.print()


def print_doubt(screen: "Console", doubt: str) -> None:
    """Prints what the user should mend first."""
    screen.print(f"note: {doubt}", style="yellow", markup=False, highlight=False)


def describe_note(value: object) -> str:
    """What a reader noted of a file, or of each of several."""
    from limbeck.data.readers.column_names import quote

    if isinstance(value, list):
        return quote(value)
    if not isinstance(value, dict):
        return "tab" if value == "\t" else str(value)
    if len(value) == 1:
        return describe_note(next(iter(value.values())))
    return ", ".join(f"{name} {item}" for name, item in value.items())


def shorten(text: str) -> str:
    """A text without its middle where it is long: how it ends matters."""
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[: SHOWN_CHARS - END_CHARS]} [...] {text[-END_CHARS:]}"


def draw_findings(findings: "FileFindings", *, title: str) -> "Table":
    """What a file holds, as a table to read."""
    from rich.table import Table
    from rich.text import Text

    from limbeck.drafting.findings import SHOWN_DROPS, Lengths

    table = Table("", "", box=None, show_header=False, title=Text(title), title_justify="left")

    def add(label: str, value: str) -> None:
        table.add_row(label, Text(value))  # brackets in a user's text are no markup

    add("rows", f"{findings.num_read:,} read, {len(findings.records):,} usable")
    for reason, drops in findings.dropped.items():
        shown = "; ".join(f"{drop.place} {drop.detail}".strip() for drop in drops[:SHOWN_DROPS])
        add("dropped", f"{len(drops):,} {reason}: {shown}")
    for name, value in findings.notes.items():
        add(name.replace("_", " "), describe_note(value))
    sample = findings.sample
    total = len(sample)
    add(
        "languages",
        ", ".join(
            f"{name} {count / total:.0%}" for name, count in findings.languages.most_common(4)
        ),
    )
    for label, texts in (
        ("questions", [record.question for record in sample]),
        ("answers", [record.answer for record in sample]),
    ):
        lengths = Lengths.of(texts)
        add(
            label,
            f"{lengths.median:,} characters in the median, 95 % at most {lengths.most:,}, "
            f"longest {lengths.longest:,}",
        )
    for label, count in (
        ("with earlier turns", findings.num_conversations),
        ("with instructions", findings.num_with_system),
        ("with a rejected answer", findings.num_pairs),
        ("with images", findings.num_with_images),
        ("plain text", findings.num_texts),
    ):
        if count:
            add(label, f"{count:,}")
    if labels := findings.labels:
        add("labels", f"{len(labels)}: {', '.join(labels[:8])}")
    return table
