"""What pruning refuses of a model before it runs, by the functions that refuse while it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from limbeck.models.config import Ability, GroupKind
from limbeck.models.known import KnownModel, Refusal, refusals

ABILITIES: Mapping[GroupKind, Ability] = {"channels": "cut_channels", "heads": "cut_heads"}
"""What the description alone may say of a model."""
BLAMED: Sequence[GroupKind] = ("heads", "hidden")
"""What transformers' checks of a config most often divide by each other."""


def refuse_cut(
    model: KnownModel, *, shares: Mapping[GroupKind, tuple[float, int]]
) -> Iterator[Refusal]:
    """Whatever keeps a model from being cut; `shares` are ratios and their multiples, by kind."""
    cut: dict[GroupKind, tuple[float, int]] = {
        kind: share for kind, share in shares.items() if share[0]
    }
    faults = [
        fault
        for kind in cut
        if kind not in ABILITIES or not model.is_able(ABILITIES[kind])
        for fault in refusals(f"{kind}_ratio", partial(FINDERS[kind], model))
    ]
    for kind, (ratio, multiple) in cut.items():
        faults += refusals(f"{kind}_ratio", partial(_count, model, kind, ratio, multiple))
    yield from faults
    if cut and not faults and (model.description is None or model.changes):
        blamed = next((kind for kind in BLAMED if kind in cut), next(iter(cut)))
        yield from refusals(f"{blamed}_ratio", partial(_try_cut, model, cut))


def _count(model: KnownModel, kind: GroupKind, ratio: float, multiple: int) -> int | None:
    from limbeck.pruning.shapes import check_picks, count_groups, count_kept  # noqa: PLC0415

    shape = (
        model.config.get_text_config()
        if model.description is None or model.changes
        else model.description.text_decoder
    )
    number = count_groups(shape)[kind]
    if not number:
        return None
    kept = count_kept(number, ratio=ratio, multiple=multiple, kind=kind)
    if kind == "experts":
        check_picks(shape, num_experts=kept)
    return kept


def _try_cut(model: KnownModel, shares: Mapping[GroupKind, tuple[float, int]]) -> None:
    from limbeck.pruning.dry_run import try_cut  # noqa: PLC0415  (torch)
    from limbeck.pruning.rebuild import check_config  # noqa: PLC0415
    from limbeck.pruning.shapes import count_left, describe_cut  # noqa: PLC0415

    num_kept = count_left(model.config.get_text_config(), shares=shares)
    check_config(describe_cut(model.config, num_kept=num_kept))
    try_cut(model.layers, num_kept=num_kept)


def _find_channels(model: KnownModel) -> object:
    from limbeck.models.structure import find_channels  # noqa: PLC0415  (torch)

    return find_channels(model.layers)


def _find_heads(model: KnownModel) -> object:
    from limbeck.models.structure import find_heads  # noqa: PLC0415  (torch)

    return find_heads(model.layers)


def _find_experts(model: KnownModel) -> object:
    from limbeck.pruning.experts import find_experts  # noqa: PLC0415  (torch)

    return find_experts(model.layers)


def _find_layers(model: KnownModel) -> object:
    from limbeck.models.structure import find_layers  # noqa: PLC0415  (torch)

    return find_layers(model.layers)


def _find_stream(model: KnownModel) -> object:
    from limbeck.pruning.width import find_stream  # noqa: PLC0415  (torch)

    return find_stream(model.layers)


FINDERS: Mapping[GroupKind, Callable[[KnownModel], object]] = {
    "channels": _find_channels,
    "heads": _find_heads,
    "experts": _find_experts,
    "layers": _find_layers,
    "hidden": _find_stream,
}
"""Each refuses a model in which it finds nothing that can be cut."""
