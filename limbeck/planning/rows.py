"""What a plan holds: a row for each entry, with its size, its training and its serving.

Tables and JSON show the same fields. How they are found is in `plan`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from limbeck.contracts.serialization import MERGED
from limbeck.sizing.assumptions import Assumptions
from limbeck.sizing.cards import Gpu
from limbeck.sizing.machine_speed import Speed
from limbeck.sizing.memory import LayoutName, ServingMemory, TrainingMemory, Workload
from limbeck.sizing.number_formats import BudgetFit


@dataclass(frozen=True)
class Peak:
    """Memory of one card at the peak of a training step, and its sum."""

    memory: TrainingMemory = field(metadata=MERGED)
    total: int


@dataclass(frozen=True)
class FittingWay:
    """How a training fits the cards."""

    changes: tuple[str, ...]
    """Of what the recipe says; empty where it fits as it is."""
    memory: Peak
    tokens_per_second: float | None
    """None where the state lies in RAM: the link to it is not estimated."""
    seconds: float | None


@dataclass(frozen=True)
class CardsWay:
    """On how many cards of a kind a training fits."""

    cards: str
    experts_divided: bool
    memory: Peak
    tokens_per_second: float
    seconds: float


@dataclass(frozen=True)
class TrainingOnCards:
    """The memory of a training in each layout, and what fits."""

    cards: str
    usable_bytes: int
    """Of one card."""
    workload: Workload
    flops_per_token: float
    by_layout: Mapping[LayoutName, Peak]
    fit: FittingWay | None
    needed: CardsWay | None
    """More cards of the same kind, where it does not fit."""
    larger: CardsWay | None
    """Larger cards, where it fits no number of these unless experts are divided."""
    verdict: str

    @property
    def way(self) -> FittingWay | CardsWay | None:
        """The cheapest way that fits."""
        return self.fit or self.needed or self.larger


@dataclass(frozen=True)
class TrainingCost:
    """What it costs to train an entry."""

    training_tokens: int
    seconds: float
    """On this machine."""
    training: TrainingOnCards


@dataclass(frozen=True)
class FormatServing:
    """Answering in one number format."""

    memory: ServingMemory = field(metadata=MERGED)
    total: int
    fits: bool
    tokens_per_second: float


@dataclass(frozen=True)
class ServingOnCards:
    """The memory of answering in each number format, and what fits."""

    cards: str
    usable_bytes: int
    """Of all cards together."""
    by_format: Mapping[str, FormatServing]
    fitting: tuple[str, ...]
    fits_with_context_tokens: int
    fits_with_kept_ratio: float
    experts_in_ram: tuple[str, int, int] | None
    """The format, bytes on the cards, bytes in RAM."""
    cards_needed: int
    verdict: str


@dataclass(frozen=True)
class SizeTarget:
    """How a model reaches a size."""

    fit: BudgetFit = field(metadata=MERGED)
    verdict: str


@dataclass(frozen=True)
class ModelCost:
    """What a model holds, and what it costs to answer."""

    parameters: int
    active_parameters: int
    embedding_parameters: int
    expert_parameters: int
    skipped_expert_ratio: float
    context_tokens: int
    forward_flops_per_token: float
    kv_cache_bytes_per_token: int
    bytes: Mapping[str, int]
    """Of all weights, by number format."""
    inference: ServingOnCards
    size_targets: Mapping[str, SizeTarget]


@dataclass(frozen=True)
class PlanRow:
    """One entry of the recipe."""

    name: str
    stage: str
    model: ModelCost | None = field(metadata=MERGED)
    """None where the entry makes no model."""
    trained: TrainingCost | None = field(metadata=MERGED)
    """None where the entry trains none."""


@dataclass(frozen=True)
class CorpusFacts:
    """What lengths and vocabulary the rows are computed with."""

    vocab: int
    record_tokens: float
    assumed: bool


@dataclass(frozen=True)
class Plan:
    """The rows, and the assumptions behind them."""

    rows: tuple[PlanRow, ...]
    seconds: float
    """Of all training on this machine."""
    speed: Speed
    corpora: Mapping[str, CorpusFacts]
    assumed: Assumptions
    cards: Mapping[str, Gpu]
