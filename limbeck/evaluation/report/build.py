"""`report.json`: what was measured, on what, with which machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.records import Split
from limbeck.contracts.serialization import OPTIONAL
from limbeck.env.machine import describe_machine, package_versions
from limbeck.evaluation.report.published_reference import REFERENCE, PublishedResult
from limbeck.evaluation.report.rows import FloorRow, ReportRow
from limbeck.evaluation.report.same_runtime import RuntimeSpeedup
from limbeck.evaluation.report.without_teacher import TeacherGain
from limbeck.evaluation.tier_routing.measure import MeasuredRouting

SCHEMA_VERSION = 1
LIBRARIES = ("limbeck", "torch", "transformers", "onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True)
class Environment:
    """The machine and the libraries that the times belong to."""

    python: str
    system: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    libraries: Mapping[str, str]
    load_average_before: tuple[float, ...]
    load_average_after: tuple[float, ...]


@dataclass(frozen=True)
class TaskCount:
    """How many questions of a task were asked, and how many there are."""

    asked: int
    available: int


@dataclass(frozen=True)
class CorpusSummary:
    """What the models were asked from, and how it was compared with what they trained on."""

    name: str
    content_hash: str
    splits: Mapping[Split, int]
    split: str
    """What is measured on, in words."""
    tasks: Mapping[str, TaskCount]
    train_records_compared: int
    left_out: int | None = field(default=None, metadata=OPTIONAL)
    """Records of the test split that are not asked, where the split is."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of `report.json`."""

    schema_version: int = SCHEMA_VERSION
    environment: Environment
    corpus: CorpusSummary
    teacher: str
    headline_tasks: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    floors: tuple[FloorRow, ...] = ()
    """What answers the same questions from the training records alone; () in older reports."""
    teacher_gains: tuple[TeacherGain, ...] = ()
    """Of students whose counterpart, trained without their teacher, has a row, too."""
    in_runtimes: tuple[RuntimeSpeedup, ...] = ()
    """Bundles beside the teacher's own of the same runtime; () where it has none."""
    titles: Mapping[str, Mapping[str, Mapping[str, str | int]]] = field(default_factory=dict)
    """Of `tasks` and `specialties`: each name's title by language, and how many records it has."""
    reference: Mapping[str, PublishedResult] = field(default_factory=lambda: REFERENCE)
    """Published results to compare ratios with; {} where the questions are the user's own."""
    routing: MeasuredRouting | None = field(default=None, metadata=OPTIONAL)
    """Of the router between some of the models, where the report has one."""


def read_report(path: Path) -> Report:
    """The report in a file.

    Raises:
        ArtifactError: it is no report, or not of this version.
    """
    try:
        return TypeAdapter(Report).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(
            f"{path}: not a report of this version ({error.errors()[0]['msg']}); make it again"
        ) from None


def describe_environment(
    *, load_before: tuple[float, ...], load_after: tuple[float, ...]
) -> Environment:
    """This machine with its libraries, and its load before and after the measurement."""
    versions = package_versions(LIBRARIES, absent="")
    return Environment(
        **vars(describe_machine()),
        libraries={name: item for name, item in versions.items() if item},
        load_average_before=load_before,
        load_average_after=load_after,
    )
