"""Answers at the terminal, piece by piece, with a word of caution when the model is unsure."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.console import report_user_errors
from limbeck.contracts.answerer import Answerer, as_prompt, geometric_mean
from limbeck.contracts.errors import DataError

GENERAL_DISCLAIMER = {"zh": "机器生成，仅供参考", "en": "machine-made, for reference only"}
"""Where the model brings none of its domain."""


def ask(
    model: Annotated[Path, typer.Argument(help="A checkpoint or bundle, as runs/demo/int8.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    images: Annotated[
        list[Path], typer.Option("--image", help="An image that the question is about.")
    ] = [],  # noqa: B006
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: by the model's size and the free cores.")
    ] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 200,
) -> None:
    """Ask a model; the answer streams, and an unsure model says so."""
    with report_user_errors():
        from limbeck.runtimes import open_answerer
        from limbeck.runtimes.bundle import read_disclaimer, read_min_confidence

        answerer = open_answerer(model, num_threads=threads or "auto")
        for piece in stream_answer(
            answerer,
            question,
            max_new_tokens=max_new_tokens,
            images=images,
            min_confidence_ratio=read_min_confidence(model),
            disclaimer=read_disclaimer(model),
        ):
            typer.echo(piece, nl=False)
        typer.echo()


def stream_answer(
    answerer: Answerer,
    question: str,
    *,
    max_new_tokens: int,
    min_confidence_ratio: float,
    images: Sequence[Path] = (),
    disclaimer: Mapping[str, str] = GENERAL_DISCLAIMER,
) -> Iterator[str]:
    """Pieces of the answer as they come, then how sure the model was.

    Raises:
        DataError: the question is empty, or has images that the model cannot see.
        ImageError: an image cannot be read.
    """
    if not question.strip():
        raise DataError("the question is empty; ask something")
    prompt = as_prompt(question, images=images)
    logs: list[float] = []
    for piece, log_prob in answerer.stream(prompt, max_new_tokens=max_new_tokens):
        logs.append(log_prob)
        yield piece
    confidence = geometric_mean(logs)
    if confidence < min_confidence_ratio:
        yield (
            f"\n不确定：我不知道这个答案是否正确（把握 {confidence:.0%}）"
            f" / unsure: I do not know whether this is right ({confidence:.0%})"
        )
    shown = disclaimer or GENERAL_DISCLAIMER
    yield f"\n（{shown['zh']} / {shown['en']}）"
