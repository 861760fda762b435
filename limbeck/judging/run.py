"""A report and a judge to a result on disk, which the same command completes after a kill."""

import dataclasses
import re
from pathlib import Path

from limbeck.contracts.records import write_jsonl
from limbeck.judging.judge import JudgeConfig, judge_pairs
from limbeck.judging.pairs import read_pairs
from limbeck.judging.result import JudgeResult, summarize


def run_judge(report: Path, *, models: tuple[str, str], config: JudgeConfig) -> JudgeResult:
    """The result; calls and verdicts are kept in the folder that `judge_folder` names.

    Raises:
        UnknownNameError, DataError: the report does not hold both models' answers.
        EndpointError: the judge cannot be used.
    """
    pairs = read_pairs(report, models=models)
    pairs = pairs[: config.max_questions] if config.max_questions else pairs
    judge = config.endpoint.model
    folder = judge_folder(report, models=models, judge=judge)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = judge_pairs(pairs, config=config, call_log=folder / "calls.jsonl")
    lines = [
        {
            **dataclasses.asdict(verdict),
            "question": pair.question,
            "answers": dict(zip(models, pair.answers, strict=True)),
            "winner": {"a": models[0], "b": models[1]}.get(verdict.winner, "tie"),
        }
        for pair, verdict in zip(pairs, verdicts, strict=True)
    ]
    write_jsonl(folder / "verdicts.jsonl", lines)
    return summarize(verdicts, models=models, judge=judge)


def judge_folder(report: Path, *, models: tuple[str, str], judge: str) -> Path:
    """Where calls and verdicts of one comparison are kept, beside the report."""
    name = re.sub(r"[^\w.-]+", "_", judge)
    return report.parent / "judge" / f"{models[0]}-against-{models[1]}-by-{name}"
