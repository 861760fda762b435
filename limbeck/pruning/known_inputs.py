"""What pruning refuses of a model before it runs, by the functions that refuse while it runs."""

from collections.abc import Iterator

from limbeck.models.known import KnownModel, Refusal, refusals


def refuse_cut(
    model: KnownModel,
    *,
    channels_ratio: float,
    heads_ratio: float,
    layers_ratio: float,
    hidden_ratio: float,
) -> Iterator[Refusal]:
    """Whatever keeps a model from being cut."""
    if channels_ratio and not model.is_able("cut_channels"):
        yield from refusals("channels_ratio", lambda: _find_channels(model))
    if heads_ratio and not model.is_able("cut_heads"):
        yield from refusals("heads_ratio", lambda: _find_heads(model))

    if layers_ratio:
        yield from refusals("layers_ratio", lambda: _find_layers(model))
    if hidden_ratio:
        yield from refusals("hidden_ratio", lambda: _find_stream(model))


def _find_channels(model: KnownModel) -> object:
    from limbeck.models.structure import find_channels  # noqa: PLC0415  (torch)

    return find_channels(model.layers)


def _find_heads(model: KnownModel) -> object:
    from limbeck.models.structure import find_heads  # noqa: PLC0415  (torch)

    return find_heads(model.layers)


def _find_layers(model: KnownModel) -> object:
    from limbeck.models.structure import find_layers  # noqa: PLC0415  (torch)

    return find_layers(model.layers)


def _find_stream(model: KnownModel) -> object:
    from limbeck.pruning.width import find_stream  # noqa: PLC0415  (torch)

    return find_stream(model.layers)
