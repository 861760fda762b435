"""The key `tune` of a recipe: what is searched, by which measure, within which budget."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import override

from limbeck.contracts.config import Choice, Config
from limbeck.contracts.fields import PositiveFloat, PositiveInt
from limbeck.contracts.registry import PRUNERS


class Range(Config):
    """Every number between two; whole numbers where the recipe's own value is one."""

    low: float
    high: float
    log: bool = False
    """Whether factors count, as for a learning rate, and not differences."""

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}, both finite")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, found {self.low:g}")
        return self


class Choices(Config):
    """One of several values: numbers, texts, or whole mappings and lists."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]


def _read_axis(value: Any) -> Range | Choices:
    if isinstance(value, Range | Choices):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {{low, high}} or {{choices}}, found {value!r}")
    return (Choices if "choices" in value else Range).model_validate(value)


SearchedValue = Annotated[Any, BeforeValidator(_read_axis)]


class SearchBudget(Config):
    """What a student may cost; one that costs more never wins."""

    max_parameters: PositiveFloat = math.inf
    max_mib: PositiveFloat = math.inf
    """Weights as stored, in MiB (2^20 bytes)."""
    max_latency_ms: PositiveFloat = math.inf
    """Median time of one answer on one thread; measured only where it is bounded."""


class Pruner(Config):
    """Base of what stops hopeless trials early, by validation likelihood at rungs."""

    @abstractmethod
    def rungs(self) -> tuple[float, ...]:
        """Shares of the training after which a trial is looked at, ascending."""

    @abstractmethod
    def build(self) -> BasePruner:
        """Optuna's pruner; rung `k` is reported to it as step `marks[k]` of `marks`."""

    def marks(self) -> tuple[int, ...]:
        """What a rung is called before Optuna."""
        return tuple(range(1, len(self.rungs()) + 1))


class Halving(Pruner):
    """At each rung the best `1 / reduction` goes on (Li et al. 2020, arXiv:1810.05934)."""

    kind: Literal["halving"]
    reduction: Annotated[int, Field(ge=2)] = 3
    num_rungs: Annotated[int, Field(ge=1, le=6)] = 2
    """The last one lies at `1 / reduction` of the steps."""

    @override
    def rungs(self) -> tuple[float, ...]:
        return tuple(self.reduction**-power for power in range(self.num_rungs, 0, -1))

    @override
    def marks(self) -> tuple[int, ...]:
        return tuple(self.reduction**index for index in range(self.num_rungs))

    @override
    def build(self) -> BasePruner:
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.reduction)


class Median(Pruner):
    """A trial below the median of the trials before it, at the same rung, stops."""

    kind: Literal["median"]
    startup_trials: PositiveInt = 4
    """So many trials are never stopped."""
    num_rungs: Annotated[int, Field(ge=1, le=20)] = 3
    """Evenly over the training."""

    @override
    def rungs(self) -> tuple[float, ...]:
        return tuple(index / (self.num_rungs + 1) for index in range(1, self.num_rungs + 1))

    @override
    def build(self) -> BasePruner:
        return MedianPruner(n_startup_trials=self.startup_trials)


class Never(Pruner):
    """Every trial trains to its end."""

    kind: Literal["none"]

    @override
    def rungs(self) -> tuple[float, ...]:
        return ()

    @override
    def build(self) -> BasePruner:
        return NopPruner()


class Confirm(Config):
    """How settings are trained again before one of them is called better than the recipe's own."""

    candidates: Annotated[int, Field(ge=1, le=20)] = 2
    """The best settings of the trials, beside the recipe's own."""
    seeds: Annotated[int, Field(ge=3, le=20)] = 3
    """Fresh ones, the same for all; they alone count. Two would give too narrow intervals."""


START_FROM: tuple[Mapping[str, Any], ...] = (
    {"objective.temperature": 1.0},
    {"objective.weight": 0.5},
    {"objective.weight": 0.0},
)
"""What measured tables support beside the recipe's own settings (docs/distillation/README.md):
the teacher's distributions as they are, a smaller share of them, and labels alone."""


class Tuning(Config):
    """What `limbeck tune` does with a recipe."""

    stage: str
    """The `distill` entry whose settings are searched."""
    metric: Literal["kept_accuracy", "likelihood"] = "kept_accuracy"
    """Accuracy over the teacher's on validation records asked as questions, or the mean
    log-likelihood of their tokens. Neither reads test records or the corpus's questions."""
    search: Mapping[str, SearchedValue] = {}
    """Paths below the entry to `{low, high, log}` or `{choices}`; `*` is every item of a list.
    Empty: the default space."""
    budget: SearchBudget = SearchBudget()
    trials: PositiveInt = 20
    seed: int = 0
    start_from: tuple[Mapping[str, Any], ...] = START_FROM
    """Settings that are tried first, as changes of the recipe's own, which always come before them.
    Of the default list, those outside the space are left out."""
    confirm: Confirm = Confirm()
    to_end_ratio: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the trials that no pruner stops, evenly, so that it shows how well rungs choose."""
    pruner: Annotated[Pruner, Choice(PRUNERS, what="pruner")] = Median(kind="median")
    max_questions: PositiveInt = 200
    """Validation records that are asked, drawn by a hash of their ids."""
    max_new_tokens: PositiveInt = 64
