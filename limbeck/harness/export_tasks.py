"""A corpus's own questions as local tasks, so that both evaluations ask the same."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Question, write_jsonl
from limbeck.evaluation.held_out_questions import read_evaluation
from limbeck.evaluation.tasks import make_prompt
from limbeck.models.chat_tokens import chat_template_of, end_token_ids
from limbeck.models.tokenizers import load_tokenizer
from limbeck.runtimes.chat import Chat, RenderedOption
from limbeck.runtimes.transformers import TransformersCodec

SHARED = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
description: "{{{{system}}}}"
doc_to_text: question
target_delimiter: ""
"""
CHOICE = """\
# Each choice opens as the model's chat template opens an answer and ends as the corpus's ends it,
# and its tokens are counted by the corpus's tokenizer: acc_per_token means what Limbeck's report
# means for models that have it.
class: !function limbeck.harness.choice_task.ChoiceTask
output_type: multiple_choice
doc_to_choice: options
doc_to_target: gold
process_results: !function limbeck.harness.scoring.score_choice
metric_list:
  - {metric: acc_per_token, aggregation: mean, higher_is_better: true}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ANSWER = """\
# correct is Limbeck's verdict: numbers as quantities, lists by entity F1. exact_match is literal.
output_type: generate_until
doc_to_target: target
generation_kwargs: {{until: {until}, max_gen_toks: {max_new_tokens}, do_sample: false}}
process_results: !function limbeck.harness.scoring.score_answer
metric_list:
  - {{metric: correct, aggregation: mean, higher_is_better: true}}
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


@dataclass(frozen=True)
class ExportedTasks:
    """What was written."""

    num_questions: dict[str, int]
    """Of each task, by its name."""
    left_out: dict[str, int]
    """Questions that lm-eval cannot ask, by why."""


def export_tasks(
    corpus: Corpus, *, folder: Path, max_questions: int, max_new_tokens: int
) -> ExportedTasks:
    """Write each task's questions, those that a report would ask, as a task file and its data.

    A task is named by the folder and by its name in the report.

    Raises:
        ArtifactError, DataError: the corpus has no questions, or none that lm-eval can ask.
    """
    if not corpus.records_path("train").is_file():
        raise DataError("is no corpus; name one, as runs/my/corpus", path=corpus.folder)
    found = read_evaluation(corpus, source="auto", max_questions=max_questions).questions
    left_out: Counter[str] = Counter()
    kept: dict[str, list[Question]] = {}
    for question in found:
        reason = "with images" if question.images else "with earlier turns"
        if question.images or question.history:
            left_out[reason] += 1
            continue
        kept.setdefault(question.task, []).append(question)
    if not kept:
        raise DataError(
            f"none of {len(found)} questions can be asked by lm-eval: {dict(left_out)}",
            path=corpus.folder,
        )
    answers = _read_answers(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for task, questions in kept.items():
        for form, asked in _by_form(questions).items():
            name = f"{folder.absolute().name}_{task}" + ("" if form == "all" else f"_{form}")
            is_choice = asked[0].form == "choice"
            documents = [_describe(question, answers=answers) for question in asked]
            write_jsonl(folder / f"{name}.jsonl", documents)
            until = json.dumps([answers.ends[0].strip()])
            free = ANSWER.format(max_new_tokens=max_new_tokens, until=until)
            rest = CHOICE if is_choice else free
            text = SHARED.format(name=name) + rest
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
            counts[name] = len(documents)
    return ExportedTasks(counts, dict(left_out))


def _by_form(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """The questions apart by whether they choose, where a task has both kinds."""
    choices = [question for question in questions if question.form == "choice"]
    others = [question for question in questions if question.form != "choice"]
    return {"choice": choices, "free": others} if choices and others else {"all": list(questions)}


@dataclass(frozen=True)
class _Answers:
    """How the corpus's tokenizer and its template write answers."""

    chat: Chat
    ends: tuple[str, ...]
    """Texts that end an answer, the trained one first."""


def _read_answers(corpus: Corpus) -> _Answers:
    tokenizer = load_tokenizer(corpus.tokenizer_path)
    template, ids = chat_template_of(tokenizer), end_token_ids(tokenizer)
    written = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]
    blank = template.end[: len(template.end) - len(template.end.lstrip())]
    chat = Chat(template, TransformersCodec(tokenizer), end_ids=ids)
    return _Answers(chat, tuple(blank + text for text in written))


def _describe(question: Question, *, answers: _Answers) -> JsonObject:
    document: JsonObject = {
        "id": question.id,
        "system": question.system,
        "question": question.question,
        "target": question.answers[0],
        "asked": json.dumps(dataclasses.asdict(question), ensure_ascii=False),
    }
    if question.form != "choice":
        return document | {"opening": answers.chat.template.opening}
    rendered = answers.chat.render_options(make_prompt(question), question.options)
    return document | {
        "options": list(question.options),
        "ends": list(answers.ends),
        "choice_tokens": [len(option.answer) for option in rendered],
        "given": _find_given(question, rendered=rendered[0], chat=answers.chat),
        "gold": question.options.index(question.answers[0]),
    }


def _find_given(question: Question, *, rendered: RenderedOption, chat: Chat) -> str:
    """What stands before an answer and is no part of it, from the prompt's last word on.

    lm-eval takes white space that ends a prompt for a part of each answer.
    """
    turn = chat.template.render_turn(make_prompt(question).messages, answer=question.options[0])
    shown = turn.prompt.rstrip()
    opening = turn.opening if len(rendered.given) > len(chat.encode(turn.prompt)) else ""
    is_read = len(rendered.given) > len(chat.encode(shown))
    return turn.prompt[len(shown) :] + opening if is_read else ""
