"""What fits a target: the model asked for in every file format, and the designs that fit.

Only what the runtimes write is listed. Budgets are compared with estimates by arithmetic alone;
nothing is built, torch is not loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.serialization import MERGED
from limbeck.models.decoder_sizes import SizedConfig
from limbeck.planning.designs import Design, choose_usual, list_cuts, list_fresh
from limbeck.planning.refusals import find_refusal
from limbeck.planning.targets import Target
from limbeck.planning.wanted import SizedWanted, assume_tokenizer, find_wanted
from limbeck.sizing.attention import find_number
from limbeck.sizing.estimates import DesignEstimate, Device, TextLengths, estimate
from limbeck.sizing.file_formats import FILE_FORMATS, FileFormat


@dataclass(frozen=True)
class Miss:
    """A budget that a design does not keep."""

    budget: str
    allowed: float
    found: float
    factor: float
    """How many times too much, or too slow."""


@dataclass(frozen=True)
class DesignRow:
    """A design in a file format, beside the budgets."""

    shape: Mapping[str, int]
    made_by: str
    """"as it is", "pruned" or "fresh"."""
    settings: Mapping[str, float]
    """Of the stage `prune`."""
    estimate: DesignEstimate = field(metadata=MERGED)
    misses: tuple[Miss, ...]


@dataclass(frozen=True)
class ModelPlan:
    """One model beside the target."""

    name: str
    vocab: int
    vocabulary_from: str
    asked: tuple[DesignRow, ...]
    """The model that was asked for, in every format; empty where only budgets were stated."""
    fitting: tuple[DesignRow, ...]
    """For each format the largest design that keeps every budget."""
    nearest: tuple[DesignRow, ...]
    """For each format of which none does, the design that misses by the least."""
    impossible: Mapping[str, str]
    """Formats that no file of the model that was asked for is written in, and why."""


@dataclass(frozen=True)
class TargetPlan:
    """What fits a target."""

    name: str
    target: Target
    models: tuple[ModelPlan, ...]
    left_out: Mapping[str, str]
    """Entries of a recipe that are not sized, and why."""


def plan_target(name: str, target: Target) -> TargetPlan:
    """What fits a target, for the model that it names.

    Raises:
        CheckpointError: a folder cannot be read, or holds no dense decoder.
    """
    return TargetPlan(name, target, (_plan_model(find_wanted(target), target),), {})


def plan_models(name: str, target: Target, models: Mapping[str, SizedConfig]) -> TargetPlan:
    """What of a recipe's models fits a target, by the name of the entry."""
    plans, left_out = [], {}
    for entry, sizes in models.items():
        try:
            plans.append(_plan_model(assume_tokenizer(entry, sizes), target))
        except CheckpointError as error:
            left_out[entry] = str(error)
    return TargetPlan(name, target, tuple(plans), left_out)


def _plan_model(wanted: SizedWanted, target: Target) -> ModelPlan:
    fresh: Sequence[Design] = list_fresh(
        target.model.family, wanted.num_tokens, target.context_tokens
    )
    cuts: Sequence[Design] = ()
    if wanted.sizes is not None:
        cuts = list_cuts(wanted.sizes)
        most = cuts[0].parameters
        fresh = [item for item in fresh if item.parameters < most] or fresh[:1]
    asked, fitting, nearest = [], [], []
    impossible: dict[str, str] = {}
    for item in FILE_FORMATS.values():
        if item.runtime not in target.runtimes:
            continue
        weigh = _Scale(item, target=target, wanted=wanted)
        if cuts and (fault := weigh.find_fault(cuts[0])):
            impossible[item.name] = fault
        elif cuts:
            asked.append(weigh(cuts[0]))
        found = _find_largest(cuts, fresh, weigh)
        if found is not None:
            fitting.append(found)
        else:
            nearest.append(_find_nearest([*cuts, *fresh], weigh))
    return ModelPlan(
        wanted.name,
        wanted.num_tokens,
        wanted.vocabulary_from,
        tuple(asked),
        tuple(fitting),
        tuple(nearest),
        impossible,
    )


class _Scale:
    """Weighs designs in one file format against one target."""

    def __init__(self, file_format: FileFormat, *, target: Target, wanted: SizedWanted) -> None:
        self._format = file_format
        self._target = target
        self._wanted = wanted
        machine = target.machine
        self._device = Device(machine.bytes_per_second, machine.flops_per_second, machine.threads)

    def find_fault(self, design: Design) -> str:
        """Why there is no file of the design; '' where its runtime writes one."""
        fault = self._format.find_fault(design.shapes)
        return fault or find_refusal(design.sizes, self._format)

    def __call__(self, design: Design) -> DesignRow:
        """The design beside the budgets."""
        text, target = design.sizes.get_text_config(), self._target
        longest = find_number(text, "max_position_embeddings") or target.context_tokens
        use = TextLengths(min(target.context_tokens, longest), min(target.prompt_tokens, longest))
        found = estimate(
            design.sizes,
            self._format,
            shapes=design.shapes,
            vocabulary=self._wanted.vocabulary,
            device=self._device,
            use=use,
        )
        return DesignRow(
            design.shape,
            design.made_by,
            design.settings,
            found,
            tuple(_list_misses(found, self._target)),
        )


def _list_misses(found: DesignEstimate, target: Target) -> Iterator[Miss]:
    most = (
        ("disk_bytes", target.disk_bytes, found.disk_bytes),
        ("memory_bytes", target.memory_bytes, found.memory_bytes),
        (
            "first_token_milliseconds",
            target.first_token_milliseconds,
            1000 * found.first_token_seconds,
        ),
    )
    for budget, allowed, value in most:
        if allowed and value > allowed:
            yield Miss(budget, float(allowed), float(value), value / allowed)
    least = target.least_tokens_per_second
    if least and found.tokens_per_second < least:
        speed = found.tokens_per_second
        yield Miss("tokens_per_second", float(least), speed, least / speed)


def _find_largest(
    cuts: Sequence[Design], fresh: Sequence[Design], weigh: _Scale
) -> DesignRow | None:
    """The least pruned start that keeps the budgets; or the largest fresh design."""
    for design in cuts:
        if not weigh.find_fault(design) and not (row := weigh(design)).misses:
            return row
    rows = [(design, weigh(design)) for design in fresh if not weigh.find_fault(design)]
    fitting = [design for design, row in rows if not row.misses]
    chosen = choose_usual(fitting) if fitting else None
    return next((row for design, row in rows if design is chosen), None)


def _find_nearest(designs: Sequence[Design], weigh: _Scale) -> DesignRow:
    """The design whose worst miss is the smallest."""
    rows = (weigh(design) for design in designs if not weigh.find_fault(design))
    return min(rows, key=lambda row: max(miss.factor for miss in row.misses))
