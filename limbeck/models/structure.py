"""What can be cut out of a decoder, and what can be matched: which slices of which parameters.

A group is what must go together: a feed-forward channel, a key-value head with the query heads it
serves, or an expert. Norms of queries and keys are shared by all heads and stay. Left out: where
experts are (`pruning/experts.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import GroupKind
from limbeck.models.projections import (
    ATTENTION,
    FEED_FORWARD,
    FUSED,
    Section,
    count_shares,
    find_section,
    name_linears,
)

HEAD_NORMS = ("q_norm", "k_norm")


@dataclass(frozen=True)
class Slice:
    """Rows (axis 0) or columns (axis 1) of one parameter."""

    parameter: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class TensorSlice:
    """A run of rows or columns that a layer's groups divide among them, each `width` of them."""

    parameter: str
    axis: int
    width: int
    start: int = 0
    """Where the run begins; other groups' parts, or another part of these, may lie before it."""


@dataclass(frozen=True)
class Groups:
    """All groups of one kind in one layer; group i owns the i-th run of every part."""

    kind: GroupKind
    layer: int
    num_groups: int
    parts: tuple[TensorSlice, ...]

    def slices(self, index: int) -> tuple[Slice, ...]:
        """What one group consists of."""
        assert 0 <= index < self.num_groups
        return tuple(
            Slice(part.parameter, part.axis, start, start + part.width)
            for part in self.parts
            for start in (part.start + index * part.width,)
        )


def view_groups(
    parameter: Shaped[Tensor, "..."], *, part: TensorSlice, num_groups: int
) -> Shaped[Tensor, "groups ..."]:
    """The part with its groups as the first axis; writing to it writes to the parameter."""
    run = parameter.narrow(part.axis, part.start, num_groups * part.width)
    return run.unflatten(part.axis, (num_groups, part.width)).movedim(part.axis, 0)


def num_layers(model: PreTrainedModel) -> int:
    """Hidden-state layers that can be matched, counted from 1; the last is after the final norm."""
    return len(find_layers(model)[1])


def match_depth(layer: int, *, num_layers: int, num_sources: int) -> int:
    """The layer of a deeper model at the same relative depth, both counted from 1.

    Layer i of n meets layer ceil(i m / n) of m, so the last meets the last (evenly spread layers,
    as in DistilBERT: Sanh et al. 2019, sec. 3, arXiv:1910.01108).
    """
    return -(-layer * num_sources // num_layers)


def find_channels(model: PreTrainedModel) -> tuple[Groups, ...]:
    """The feed-forward channels of every dense layer: {gate row, up row, down column}.

    Raises:
        CheckpointError: no layer has a gated feed-forward block in the standard names.
    """
    prefix, layers = find_layers(model)
    shares = count_shares(model.config)
    found = []
    for layer, block in enumerate(layers):
        mlp = find_submodule(block, "mlp")
        if mlp is not None and set(FEED_FORWARD) & set(dict(mlp.named_children())):
            where = f"{prefix}.{layer}.mlp"
            _expect_linears(mlp, names=FEED_FORWARD, extra=(), where=where)
            gate, up = (find_section(mlp, name, shares=shares) for name in FEED_FORWARD[:2])
            parts = (
                *_rows(mlp, gate, where=where, width=1),
                *_rows(mlp, up, where=where, width=1),
                TensorSlice(f"{where}.down_proj.weight", 1, 1),
            )
            found.append(Groups("channels", layer, gate.num_rows, parts))
    if not found:
        raise CheckpointError(
            f"{type(model).__name__}: no layer has `mlp.gate_proj`, `mlp.up_proj` and "
            "`mlp.down_proj`; channels can be cut in dense decoders built like Llama and Qwen3"
        )
    expected = getattr(model.config.get_text_config(), "intermediate_size", None)
    if any(groups.num_groups != expected for groups in found):
        raise CheckpointError(
            f"{type(model).__name__}: feed-forward widths "
            f"{sorted({groups.num_groups for groups in found})} differ from intermediate_size "
            f"{expected!r} of its config; every dense layer must have that width"
        )
    return tuple(found)


def find_heads(model: PreTrainedModel) -> tuple[Groups, ...]:
    """The key-value heads of every layer: {rows of its queries, its key, its value; o columns}.

    Raises:
        CheckpointError: attention is not grouped-query attention in the standard names, or its
            norms span several heads, so that cutting one would change the others.
    """
    prefix, layers = find_layers(model)
    shares = count_shares(model.config)
    num_heads, num_groups = shares["q_proj"], shares["k_proj"]
    if num_heads % num_groups:
        raise CheckpointError(
            f"{type(model).__name__}: {num_heads} query heads cannot be shared evenly by "
            f"{num_groups} key-value heads; correct config.json"
        )
    found = []
    for layer, block in enumerate(layers):
        where = f"{prefix}.{layer}.self_attn"
        attention = find_submodule(block, "self_attn")
        if attention is None:
            raise CheckpointError(
                f"{type(model).__name__}: layer {layer} has no `self_attn`; heads can be cut in "
                "decoders built like Llama and Qwen3"
            )
        _expect_linears(attention, names=ATTENTION, extra=HEAD_NORMS, where=where)
        rows = {name: find_section(attention, name, shares=shares) for name in ATTENTION[:3]}
        width = rows["k_proj"].num_rows // num_groups
        _expect_head_shapes(attention, rows=rows, width=width, num_heads=num_heads, where=where)
        shared = width * (num_heads // num_groups)
        parts = (
            *_rows(attention, rows["q_proj"], where=where, width=shared),
            *_rows(attention, rows["k_proj"], where=where, width=width),
            *_rows(attention, rows["v_proj"], where=where, width=width),
            TensorSlice(f"{where}.o_proj.weight", 1, shared),
        )
        found.append(Groups("heads", layer, num_groups, parts))
    return tuple(found)


def find_submodule(module: nn.Module, path: str) -> nn.Module | None:
    """The submodule at a dotted path; None where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def find_parameter(module: nn.Module, path: str) -> nn.Parameter | None:
    """The parameter at a dotted path; None where there is none."""
    try:
        return module.get_parameter(path)
    except AttributeError:
        return None


def find_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder's blocks and their dotted name."""
    layers = find_submodule(model.get_decoder(), "layers")
    for name, module in model.named_modules():
        if module is layers and isinstance(module, nn.ModuleList):
            return name, module
    raise CheckpointError(
        f"{type(model).__name__}: its decoder has no list `layers`; supported are decoders built "
        "like Llama and Qwen3"
    )


def _expect_linears(
    module: nn.Module, *, names: tuple[str, ...], extra: tuple[str, ...], where: str
) -> None:
    """Refuse whatever a cut would not understand, before anything is trained."""
    linears = name_linears(module, names)
    for name in linears:
        linear = find_submodule(module, name)
        if linear is None:
            (fused,) = (layer for layer, held in FUSED.items() if set(held) < set(names))
            raise CheckpointError(
                f"{where}: has no {name!r} but {', '.join(dict(module.named_children()))}; what "
                f"can be cut has {', '.join(names)}, as in Llama and Qwen3, or {fused} in place of "
                f"{', '.join(FUSED[fused])}, as in Phi-3"
            )
        if type(linear) is not nn.Linear:
            raise CheckpointError(
                f"{where}.{name}: expected a float linear layer, found {type(linear).__name__}; "
                "prune before quantising, and a decoder built like Llama or Qwen3"
            )
    known = {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")}
    known |= {f"{name}.weight" for name in extra}
    unknown = [name for name, _ in module.named_parameters() if name not in known]
    if unknown:
        raise CheckpointError(
            f"{where}: has parameters {unknown}, which no group covers; supported are "
            f"{', '.join((*linears, *extra))}"
        )


def _expect_head_shapes(
    attention: nn.Module,
    *,
    rows: Mapping[str, Section],
    width: int,
    num_heads: int,
    where: str,
) -> None:
    queries, keys, values = (rows[name].num_rows for name in ATTENTION[:3])
    if queries != num_heads * width or keys != values:
        raise CheckpointError(
            f"{where}: {queries}, {keys} and {values} rows of queries, "
            f"keys and values do not divide into {num_heads} heads of one width {width}; supported "
            "is grouped-query attention as in Llama and Qwen3"
        )
    for name in HEAD_NORMS:
        weight = find_parameter(attention, f"{name}.weight")
        if weight is not None and weight.numel() != width:
            raise CheckpointError(
                f"{where}.{name}: normalises {weight.numel()} values, a head has {width}; cutting "
                "a head would change the others, so cut channels only (heads_ratio 0)"
            )


def _rows(module: nn.Module, section: Section, *, where: str, width: int) -> Iterator[TensorSlice]:
    """A projection's output rows, and the entries of its bias."""
    for kind in ("weight", "bias"):
        if find_parameter(module, f"{section.linear}.{kind}") is not None:
            yield TensorSlice(f"{where}.{section.linear}.{kind}", 0, width, section.start)
