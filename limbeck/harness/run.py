"""lm-evaluation-harness over several models, on the same tasks and the same documents."""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks.manager import TaskDict

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError, LimbeckError
from limbeck.contracts.fields import NonNegativeInt, PositiveInt
from limbeck.harness.language_model import HarnessModel, Prompts
from limbeck.harness.model_text import open_model
from limbeck.harness.offline import offline
from limbeck.harness.results import MetricRow, order_rows, read_rows
from limbeck.harness.tasks import load_tasks

BOOTSTRAP_SAMPLES = 1000
"""Of a metric that has no standard error in closed form, such as perplexity."""


class Settings(Config):
    """How tasks are asked; all models are asked alike."""

    prompts: Prompts = "chat"
    num_fewshot: NonNegativeInt | None = None
    """Worked examples before each question; None: what the task says."""
    limit: PositiveInt | None = None
    """At most so many documents of each task, its first ones; None: all."""
    batch_size: PositiveInt = 16
    """Requests at once."""
    num_threads: PositiveInt = 1
    """CPU threads."""
    task_folder: Path | None = None
    """Of tasks of one's own, which come before lm-eval's."""
    online: bool = False
    """Whether a task may download what it needs."""


@dataclass(frozen=True)
class ModelResult:
    """What one model gave."""

    name: str
    path: str
    rows: tuple[MetricRow, ...]
    num_truncated: int
    """Requests whose context lost its start, because the model reads no longer one."""
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    """Of each task, every document with what was asked and answered, as lm-eval logs it."""


@dataclass(frozen=True)
class HarnessReport:
    """All models on all tasks."""

    settings: Settings
    lm_eval: str
    """Its version."""
    models: tuple[ModelResult, ...]

    @property
    def rows(self) -> list[MetricRow]:
        """Task by task, the models of each together."""
        return order_rows([row for model in self.models for row in model.rows])


def run_harness(
    models: Sequence[Path], *, tasks: Sequence[str], settings: Settings
) -> HarnessReport:
    """Each model on each task.

    Raises:
        UnknownNameError: no task has a name.
        DataError: a task cannot be loaded or asked.
        CheckpointError: a model cannot be opened, or has no chat template and is to be asked so.
    """
    with _quiet(), contextlib.nullcontext() if settings.online else offline():
        loaded = load_tasks(tasks, folder=settings.task_folder, online=settings.online)
        results = tuple(
            _evaluate(path, name=name, loaded=loaded, settings=settings)
            for name, path in name_models(models).items()
        )
    return HarnessReport(settings, importlib.metadata.version("lm-eval"), results)


def name_models(models: Sequence[Path]) -> dict[str, Path]:
    """Each model's folder under the shortest end of its path that no other has."""
    paths = list(dict.fromkeys(Path(path).absolute() for path in models))
    num_parts = 1
    while len({path.parts[-num_parts:] for path in paths}) < len(paths):
        num_parts += 1
    return {"/".join(path.parts[-num_parts:]): path for path in paths}


def _evaluate(path: Path, *, name: str, loaded: TaskDict, settings: Settings) -> ModelResult:
    model, text = open_model(path, num_threads=settings.num_threads)
    harness_model = HarnessModel(
        model,
        text=text,
        name=name,
        prompts=settings.prompts,
        batch_size=settings.batch_size,
    )
    for task in loaded["tasks"].values():
        # As lm-eval's own command: a task that says 0 examples keeps them.
        stated = task.get_config("num_fewshot")
        if settings.num_fewshot is not None and stated != 0:
            task.set_config(key="num_fewshot", value=settings.num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        # Every model sees the same examples.
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    try:
        results = evaluate(
            lm=harness_model,
            task_dict=loaded,
            limit=settings.limit,
            bootstrap_iters=BOOTSTRAP_SAMPLES,
            log_samples=True,
            apply_chat_template=settings.prompts == "chat",
            fewshot_as_multiturn=True,
        )
    except LimbeckError:
        raise
    except Exception as error:  # a task's own templates and code run in there
        raise DataError(
            f"{', '.join(loaded['tasks'])}: cannot be asked: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:400]}"
        ) from error
    found = cast(dict[str, Any], results)
    return ModelResult(
        name=name,
        path=str(path),
        rows=tuple(read_rows(found, model=name)),
        num_truncated=harness_model.num_truncated,
        samples=found["samples"],
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what lm-eval prints out of the output, and its bootstrap in this process."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
