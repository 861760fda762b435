"""Checkpoints and bundles, and a corpus's questions, to a report: quality, time, memory."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from limbeck.contracts.answer_policy import AnswerPolicy, read_policy
from limbeck.contracts.answerer import Answerer, PromptLike
from limbeck.contracts.artifacts import Artifact, Work, size_bytes
from limbeck.contracts.corpus import Corpus, Titles
from limbeck.contracts.errors import DataError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Question, write_jsonl
from limbeck.contracts.serialization import to_json
from limbeck.contracts.tier_router import read_router
from limbeck.env.threads import count_cores, load_average
from limbeck.evaluation.answer_questions import (
    AnsweredQuestion,
    QuestionSet,
    answer_with_each,
    check_unique,
)
from limbeck.evaluation.declined import measure_declined
from limbeck.evaluation.floors import Floor, make_floors
from limbeck.evaluation.foreign import read_foreign
from limbeck.evaluation.held_out_questions import TEST_IMAGES, TEST_SPLIT, read_evaluation
from limbeck.evaluation.profiling.profile import ModelProcesses, Profile, profiling
from limbeck.evaluation.report.build import (
    CorpusSummary,
    Environment,
    Report,
    TaskCount,
    describe_environment,
)
from limbeck.evaluation.report.html import render_html, render_markdown
from limbeck.evaluation.report.lineage import trace
from limbeck.evaluation.report.published_reference import REFERENCE, PublishedResult
from limbeck.evaluation.report.rows import MeasuredModel, make_floor_rows, make_rows
from limbeck.evaluation.report.same_runtime import compare_in_runtimes, is_bundle_of
from limbeck.evaluation.report.without_teacher import (
    describe_training,
    measure_teacher_gain,
    pair_students,
)
from limbeck.evaluation.tasks import make_prompt
from limbeck.evaluation.tier_routing.measure import route_answers
from limbeck.models.config import VISION_TYPE
from limbeck.models.config_file import read_config
from limbeck.runtimes import open_answerer
from limbeck.stages.config.evaluate import Config

SPLIT_TITLES = {
    TEST_SPLIT: {"zh": "测试切分", "en": "test split"},
    TEST_IMAGES: {"zh": "测试切分（图像）", "en": "test split, images"},
}


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What the models answered and how fast; by the model's name."""

    environment: Environment
    floors: Sequence[Floor]
    policies: Mapping[str, AnswerPolicy]
    profiles: Mapping[str, Profile]
    answers: Mapping[str, Sequence[AnsweredQuestion]]
    foreign: Mapping[str, Sequence[AnsweredQuestion]]
    """To questions of other domains, of the calibrated models."""


def run(config: Config, *, work: Work) -> dict[str, dict[str, float | None]]:
    """Write answers, report and page; give back each row's accuracy and ratios."""
    models, artifact = work.inputs["models"], work.one("corpus")
    corpus = Corpus(artifact.path)
    check_unique(models)
    found = read_evaluation(
        corpus,
        source=config.questions,
        max_questions=config.max_questions,
        language=config.language,
        reads_images=all(map(_reads_images, models)),
    )
    is_split = found.num_left_out is not None
    of_pack = () if is_split else corpus.domain().headline_tasks
    headline_tasks = config.headline_tasks or of_pack or tuple(found.available)
    _check_headline(found, headline_tasks, corpus=corpus)
    num_compared = check_leaks(
        corpus.records("train"), held_out=found.held_out, path=corpus.records_path("train")
    )
    measured = _measure(
        config, corpus=corpus, found=found, headline_tasks=headline_tasks, work=work
    )
    report = _make_report(
        config,
        measured=measured,
        corpus=_describe_corpus(artifact, found, num_compared=num_compared),
        headline_tasks=headline_tasks,
        titles=_name_split(corpus.domain().titles) if is_split else corpus.domain().titles,
        reference={} if is_split else REFERENCE,
        work=work,
    )
    _write_floors(work.folder / "floors", floors=measured.floors)
    _write_answers(work.folder / "foreign", measured.foreign)
    _write_answers(work.folder / "answers", measured.answers)
    _write(work.folder, report=report, answers=measured.answers, artifacts=(artifact, *models))
    return {
        row.name: {
            "accuracy": row.accuracy,
            "kept_ratio": row.kept_ratio,
            "speedup_ratio": row.speedup_ratio,
            "memory_ratio": row.memory_ratio,
        }
        | ({"log_likelihood": row.log_likelihood.value} if row.log_likelihood else {})
        | ({"nats_per_byte": row.nats_per_byte.value} if row.nats_per_byte else {})
        for row in report.rows
    }


def _measure(
    config: Config,
    *,
    corpus: Corpus,
    found: QuestionSet,
    headline_tasks: Sequence[str],
    work: Work,
) -> Measurements:
    """Time every model in turns, then ask each of them everything."""
    models = work.inputs["models"]
    policies = {item.name: read_policy(item.path) for item in models}
    openers = {item.name: _openers(item, config.profile.thread_counts) for item in models}
    timed = _timed_questions(found, headline_tasks, num_questions=config.profile.questions)
    with profiling(
        openers, questions=timed, config=config.profile, max_new_tokens=config.max_new_tokens
    ) as processes:
        floors = make_floors(
            functools.partial(corpus.records, "train"),
            folder=corpus.folder,
            questions=found.questions,
            names=config.floors,
        )
        load_before = load_average()
        profiles = processes.measure()
        environment = describe_environment(load_before=load_before, load_after=load_average())
        answers = _answer(
            config, processes, models=models, questions=found.questions, state=work.state
        )
        foreign = _answer_foreign(
            config, processes, models=models, policies=policies, state=work.state / "foreign"
        )
    return Measurements(environment, floors, policies, profiles, answers, foreign)


def _make_report(
    config: Config,
    *,
    measured: Measurements,
    corpus: CorpusSummary,
    headline_tasks: tuple[str, ...],
    titles: Titles,
    reference: Mapping[str, PublishedResult],
    work: Work,
) -> Report:
    """All figures that follow from what was measured."""
    models = work.inputs["models"]
    teacher = models[config.models.index(config.teacher) if config.teacher else 0]
    num_threads = config.profile.thread_counts[0]
    floors = make_floor_rows(
        measured.floors, headline_tasks=headline_tasks, language=config.language
    )
    rows = make_rows(
        [
            _describe_model(
                model, measured=measured, unknown_answers=config.unknown_answers, teacher=teacher
            )
            for model in models
        ],
        teacher=teacher.name,
        headline_tasks=headline_tasks,
        unknown_answers=config.unknown_answers,
        num_threads=num_threads,
        floors=floors,
        language=config.language,
    )
    return Report(
        environment=measured.environment,
        corpus=corpus,
        teacher=teacher.name,
        headline_tasks=headline_tasks,
        rows=rows,
        floors=floors,
        teacher_gains=tuple(
            measure_teacher_gain(
                student, alone, answers=measured.answers, headline_tasks=headline_tasks
            )
            for student, alone in pair_students(models)
        ),
        in_runtimes=compare_in_runtimes(
            models, teacher=teacher.name, profiles=measured.profiles, num_threads=num_threads
        ),
        titles=titles,
        reference=reference,
        routing=route_answers(
            read_router(work.one("router").path),
            answers=measured.answers,
            policies=measured.policies,
            content_hashes={item.name: item.manifest.content_hash for item in models},
            tasks=headline_tasks,
        )
        if config.router
        else None,
    )


def _reads_images(artifact: Artifact) -> bool:
    """Whether a model answers about images; bundles hold text models."""
    is_model_folder = (artifact.path / "config.json").is_file()
    return is_model_folder and read_config(artifact.path)["model_type"] == VISION_TYPE


def _check_headline(found: QuestionSet, headline_tasks: Sequence[str], *, corpus: Corpus) -> None:
    missing = [task for task in headline_tasks if task not in found.available]
    if missing:
        raise DataError(
            f"no questions of the headline task {missing[0]!r}; there are "
            f"{', '.join(found.available)}: name those in headline_tasks, or make the others",
            path=corpus.questions_path,
        )


def _answer_foreign(
    config: Config,
    processes: ModelProcesses,
    *,
    models: Sequence[Artifact],
    policies: Mapping[str, AnswerPolicy],
    state: Path,
) -> dict[str, list[AnsweredQuestion]]:
    """The calibrated models' answers to questions of other domains, by name."""
    found = {}
    for model in models:
        confidence = policies[model.name].file.confidence
        if confidence != "not calibrated":
            questions = read_foreign("measurement", without=confidence.home_topics)
            found |= _answer(config, processes, models=[model], questions=questions, state=state)
    return found


def _answer(
    config: Config,
    processes: ModelProcesses,
    *,
    models: Sequence[Artifact],
    questions: Sequence[Question],
    state: Path,
) -> dict[str, list[AnsweredQuestion]]:
    """Every model's answers, by name; batches survive a kill. As many answer at once as cores."""
    return answer_with_each(
        models,
        questions,
        open_model=lambda model: processes.open(
            model.name,
            functools.partial(
                open_answerer,
                model.path,
                num_threads=config.num_threads,
                num_rows=config.batch_size,
            ),
        ),
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        state=state,
        title="answer",
        num_at_once=1
        if config.num_threads == "auto"
        else max(1, count_cores() // config.num_threads),
    )


def _openers(artifact: Artifact, thread_counts: Sequence[int]) -> dict[int, Callable[[], Answerer]]:
    return {
        count: functools.partial(open_answerer, artifact.path, num_threads=count)
        for count in thread_counts
    }


def _timed_questions(
    found: QuestionSet, headline_tasks: Sequence[str], *, num_questions: int
) -> list[PromptLike]:
    """Questions to time, evenly over the tasks and lengths of the generated headline questions."""
    pool = [item for item in found.questions if item.task in headline_tasks]
    generated = [item for item in pool if item.form != "choice"] or pool
    count = min(num_questions, len(generated))
    return [make_prompt(generated[index * len(generated) // count]) for index in range(count)]


def _describe_model(
    artifact: Artifact,
    *,
    measured: Measurements,
    unknown_answers: Sequence[str],
    teacher: Artifact,
) -> MeasuredModel:
    """One model's part of what was measured, with its size and how it was trained."""
    name = artifact.name
    return MeasuredModel(
        name,
        artifact.manifest.kind,
        artifact.manifest.content_hash,
        size_bytes(artifact.path),
        tuple(measured.answers[name]),
        measured.profiles[name],
        None
        if name == teacher.name or is_bundle_of(artifact, teacher)
        else describe_training(artifact),
        measure_declined(
            measured.policies[name],
            answered=measured.answers[name],
            foreign=measured.foreign.get(name, ()),
            unknown_answers=unknown_answers,
        ),
    )


def _name_split(titles: Titles) -> Titles:
    """Titles that name the task of test records too."""
    return {**titles, "tasks": {**titles.get("tasks", {}), **SPLIT_TITLES}}


def _describe_corpus(corpus: Artifact, found: QuestionSet, *, num_compared: int) -> CorpusSummary:
    """Name, sizes of the splits, and how many questions of each task were asked."""
    asked = [question.task for question in found.questions]
    is_split = found.num_left_out is not None
    return CorpusSummary(
        name=corpus.name,
        content_hash=corpus.manifest.content_hash,
        splits=Corpus(corpus.path).count_records(),
        split="test (held out; groups never trained on)"
        if is_split
        else "questions (evaluation only; groups never trained on)",
        tasks={
            task: TaskCount(asked.count(task), count) for task, count in found.available.items()
        },
        train_records_compared=num_compared,
        left_out=found.num_left_out,
    )


def _write_floors(folder: Path, *, floors: Sequence[Floor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for floor in floors:
        write_jsonl(folder / f"{floor.name}.jsonl", map(dataclasses.asdict, floor.answered))


def _write_answers(folder: Path, answers: Mapping[str, Sequence[AnsweredQuestion]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, answered in answers.items():
        write_jsonl(folder / f"{name}.jsonl", map(dataclasses.asdict, answered))


def _write(
    folder: Path,
    *,
    report: Report,
    answers: Mapping[str, Sequence[AnsweredQuestion]],
    artifacts: Sequence[Artifact],
) -> None:
    text = json.dumps(to_json(report), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
    page = render_html(report, answers=answers, steps=trace(artifacts))
    (folder / "report.html").write_text(page, encoding="utf-8")
