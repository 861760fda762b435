"""Answers at the terminal: what the model is sure of, or that it does not know."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.console import report_user_errors
from limbeck.contracts.errors import DataError

if TYPE_CHECKING:
    from limbeck.contracts.answer_policy import AnswerPolicy
    from limbeck.contracts.answerer import Answerer, Prompt
    from limbeck.runtimes.draft import DraftAnswer

GENERAL_DISCLAIMER = {"zh": "机器生成，仅供参考", "en": "machine-made, for reference only"}
"""Where the model brings none of its domain."""


def ask(
    model: Annotated[Path, typer.Argument(help="A checkpoint or bundle, as runs/demo/int8.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    images: Annotated[
        list[Path], typer.Option("--image", help="An image that the question is about.")
    ] = [],  # noqa: B006
    show_unsure: Annotated[
        bool, typer.Option("--show-unsure", help="Print what the model drafts, however unsure.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: by the model's size and the free cores.")
    ] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 200,
) -> None:
    """Ask a model a question.

    ```
    limbeck ask runs/mine/bundle "..."
    limbeck ask runs/chest-xray/student "..." --image film.png
    ```

    Stages `quantize` and `export` calibrate: below the confidence that they found, the answer is
    不知道 / I do not know, and --show-unsure prints the draft. A model of another stage answers
    everything, with the probability of its tokens behind it.
    """
    with report_user_errors():
        from limbeck.contracts.answer_policy import read_policy
        from limbeck.contracts.answerer import as_prompt
        from limbeck.runtimes import open_answerer

        if not question.strip():
            raise DataError("the question is empty; ask something")
        answerer = open_answerer(model, num_threads=threads or "auto")
        print_answer(
            answerer,
            as_prompt(question, images=images),
            policy=read_policy(model),
            max_new_tokens=max_new_tokens,
            show_unsure=show_unsure,
        )


def print_answer(
    answerer: "Answerer",
    prompt: "Prompt",
    *,
    policy: "AnswerPolicy",
    max_new_tokens: int,
    show_unsure: bool = False,
) -> None:
    """Print what the domain warns of, the answer, and how sure the model is of it.

    What the domain's safety rules refuse is not asked, and an answer that they hold back is not
    shown, as in `serve`. The answer streams where it will be shown whatever is in it.

    Raises:
        DataError: the prompt does not fit the model, or has images that it cannot see.
        ImageError: an image cannot be read.
    """
    from limbeck.runtimes.draft import draft_answer
    from limbeck.serving.safety import check_answer, compile_rules, find_red_flags, refuse_request

    for emergency in policy.find_emergencies(prompt.question):
        typer.echo(f"{emergency.zh} / {emergency.en}")
    rules = compile_rules(policy.file.safety)
    for finding in find_red_flags(prompt.question, rules):
        typer.echo(finding.text())
    shown = policy.file.disclaimer or GENERAL_DISCLAIMER
    disclaimer = f"（{shown['zh']} / {shown['en']}）"
    if refused := refuse_request(prompt.question, rules):
        typer.echo(f"{refused.text()}\n{disclaimer}")
        return
    is_open = show_unsure or policy.file.confidence == "not calibrated"
    streams = is_open and not rules.answers
    draft = draft_answer(
        answerer,
        prompt,
        policy=policy,
        max_new_tokens=max_new_tokens,
        on_piece=_print_piece if streams else lambda _: None,
    )
    withheld = check_answer(draft.text, rules).findings
    if streams:
        typer.echo()
    elif withheld:
        typer.echo(withheld[0].text())
    elif is_open or draft.is_shown:
        typer.echo(draft.text)
    if not withheld and (note := describe(draft, is_shown=is_open)):
        typer.echo(note)
    typer.echo(disclaimer)


def _print_piece(piece: str) -> None:
    typer.echo(piece, nl=False)


def describe(draft: "DraftAnswer", *, is_shown: bool) -> str:
    """How sure the model is; empty where the answer speaks for itself."""
    judgement = draft.judgement
    if draft.is_repeating:
        why = ("草稿不断重复", "the draft repeats itself")
    elif judgement is None:
        ratio = f"{draft.token_confidence_ratio:.0%}"
        return f"（未校准，词元概率 {ratio} / not calibrated, probability of its tokens {ratio}）"
    elif judgement.is_sure:
        return ""
    elif not judgement.is_familiar:
        why = ("问题与训练内容相去太远", "the question is unlike those that it was trained on")
    else:
        found, least = f"{judgement.confidence_ratio:.0%}", f"{judgement.min_confidence_ratio:.0%}"
        why = (f"把握 {found}，低于 {least}", f"confidence {found}, below {least}")
    if is_shown:
        return f"不知道以上是否正确：{why[0]} / I do not know whether this is right: {why[1]}"
    how = ("--show-unsure 显示草稿", "--show-unsure prints the draft")
    return f"不知道（{why[0]}；{how[0]}）/ I do not know ({why[1]}; {how[1]})"
