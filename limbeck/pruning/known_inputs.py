"""What pruning refuses of a model before it runs, by the functions that refuse while it runs."""

from collections.abc import Iterator
from functools import partial

from limbeck.models.config import GroupKind
from limbeck.models.known import KnownModel, Refusal, refusals


def refuse_cut(
    model: KnownModel,
    *,
    channels_ratio: float,
    heads_ratio: float,
    experts_ratio: float,
    layers_ratio: float,
    hidden_ratio: float,
    multiple: int,
) -> Iterator[Refusal]:
    """Whatever keeps a model from being cut."""
    if channels_ratio and not model.is_able("cut_channels"):
        yield from refusals("channels_ratio", lambda: _find_channels(model))
    if heads_ratio and not model.is_able("cut_heads"):
        yield from refusals("heads_ratio", lambda: _find_heads(model))
    if experts_ratio:
        yield from refusals("experts_ratio", lambda: _find_experts(model))
    if layers_ratio:
        yield from refusals("layers_ratio", lambda: _find_layers(model))
    if hidden_ratio:
        yield from refusals("hidden_ratio", lambda: _find_stream(model))
    ratios: dict[GroupKind, tuple[str, float, int]] = {
        "channels": ("channels_ratio", channels_ratio, multiple),
        "heads": ("heads_ratio", heads_ratio, 1),
        "experts": ("experts_ratio", experts_ratio, 1),
        "layers": ("layers_ratio", layers_ratio, 1),
        "hidden": ("hidden_ratio", hidden_ratio, multiple),
    }
    for kind, (field, ratio, each) in ratios.items():
        if ratio:
            yield from refusals(field, partial(_count, model, kind, ratio, each))


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
