"""Where channels of a decoder are made, and which linear layers read them.

Left out: layers whose channels something else reads as well, such as those of experts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.logit_parity import compute_logits
from limbeck.models.norms import is_norm
from limbeck.models.observation import hooked
from limbeck.models.projections import (
    ATTENTION,
    FEED_FORWARD,
    count_shares,
    find_section,
    name_linears,
)
from limbeck.models.structure import (
    Groups,
    find_channels,
    find_heads,
    find_layers,
    find_parameter,
)


@dataclass(frozen=True)
class Rows:
    """A run of rows of a matrix, or of entries of its bias."""

    parameter: str
    start: int
    stop: int


@dataclass(frozen=True)
class LayerPair:
    """Where channels are made, by a norm or by rows, and the linear layers that read them.

    Readers may have each run of channels several times one after another: the queries of a group
    read the values of one head.
    """

    readers: tuple[str, ...]
    norm: str = ""
    rows: tuple[Rows, ...] = ()
    num_runs: int = 1
    repeats: int = 1


def find_pairs(
    model: PreTrainedModel, *, input_ids: Int[Tensor, "prompts tokens"]
) -> list[LayerPair]:
    """Every place of a decoder where channels can be evened out; a forward pass shows some."""
    try:
        prefix, _ = find_layers(model)
    except CheckpointError:
        return []
    shares = count_shares(model.config)
    reading: set[str] = set()
    pairs = []
    for layer in _layers_of(find_heads, model):
        where = f"{prefix}.{layer}.self_attn"
        reading |= _name_readers(model, where, projections=ATTENTION[:3])
        rows = _find_rows(model, where, projection="v_proj", shares=shares)
        repeats = shares["q_proj"] // shares["v_proj"]
        pairs.append(LayerPair((f"{where}.o_proj",), "", rows, shares["v_proj"], repeats))
    for layer in _layers_of(find_channels, model):
        where = f"{prefix}.{layer}.mlp"
        reading |= _name_readers(model, where, projections=FEED_FORWARD[:2])
        rows = _find_rows(model, where, projection="up_proj", shares=shares)
        pairs.append(LayerPair((f"{where}.down_proj",), "", rows))
    # Norms come first, so that their factors are those of the weights as they were.
    norms = _trace_norms(model, input_ids=input_ids)
    behind_norms = [
        LayerPair(readers, norm) for norm, readers in norms.items() if reading.issuperset(readers)
    ]
    return behind_norms + pairs


def _layers_of(
    find: Callable[[PreTrainedModel], Sequence[Groups]], model: PreTrainedModel
) -> list[int]:
    """The layers whose blocks hold nothing but what is known."""
    try:
        return [groups.layer for groups in find(model)]
    except CheckpointError:
        return []


def _name_readers(model: PreTrainedModel, where: str, *, projections: Sequence[str]) -> set[str]:
    """The linear layers of a block that hold some projections."""
    return {f"{where}.{name}" for name in name_linears(model.get_submodule(where), projections)}


def _find_rows(
    model: PreTrainedModel, where: str, *, projection: str, shares: Mapping[str, int]
) -> tuple[Rows, ...]:
    """The rows of a block's projection, and the entries of its bias."""
    made = find_section(model.get_submodule(where), projection, shares=shares)
    names = (f"{where}.{made.linear}.{kind}" for kind in ("weight", "bias"))
    return tuple(
        Rows(name, made.start, made.stop)
        for name in names
        if find_parameter(model, name) is not None
    )


def _trace_norms(
    model: PreTrainedModel, *, input_ids: Int[Tensor, "prompts tokens"]
) -> dict[str, tuple[str, ...]]:
    """The linear layers that read each norm's output as it is, by what a forward pass hands on."""
    norms = {name: item for name, item in model.named_modules() if is_norm(item)}
    linears = {name: item for name, item in model.named_modules() if isinstance(item, nn.Linear)}
    made: dict[int, tuple[str, Tensor]] = {}  # with the tensor, so that no other gets its id
    found: dict[str, list[str]] = {}

    def note(name: str, given: Tensor, output: Tensor) -> None:
        if name in norms:
            made[id(output)] = (name, output)
        elif id(given) in made:
            found.setdefault(made[id(given)][0], []).append(name)

    with hooked(norms | linears, note=note):
        compute_logits(model, input_ids=input_ids)
    return {norm: tuple(dict.fromkeys(readers)) for norm, readers in found.items()}
