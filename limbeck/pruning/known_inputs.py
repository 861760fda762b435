"""What pruning refuses of a model before it runs, by the functions that refuse while it runs."""

from collections.abc import Iterator

from limbeck.models.known import KnownModel, Refusal, refusals


def refuse_cut(
    model: KnownModel, *, channels_ratio: float, heads_ratio: float
) -> Iterator[Refusal]:
    """Whatever keeps a model from being cut."""
    if channels_ratio and not model.is_able("cut_channels"):
        yield from refusals("channels_ratio", lambda: _find_channels(model))
    if heads_ratio and not model.is_able("cut_heads"):
        yield from refusals("heads_ratio", lambda: _find_heads(model))


def _find_channels(model: KnownModel) -> object:
    from limbeck.models.structure import find_channels  # noqa: PLC0415  (torch)

    return find_channels(model.layers)


def _find_heads(model: KnownModel) -> object:
    from limbeck.models.structure import find_heads  # noqa: PLC0415  (torch)

    return find_heads(model.layers)
