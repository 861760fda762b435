"""What export refuses of a model before it runs, by the functions that refuse while it runs."""

from collections.abc import Iterator

from limbeck.models.known import KnownModel, Refusal, refusals
from limbeck.runtimes import RuntimeName, open_runtime


def refuse_export(model: KnownModel, *, runtime: RuntimeName) -> Iterator[Refusal]:
    """Whatever keeps a model from being written for a runtime."""
    known = open_runtime(runtime)
    if model.number_format in known.formats and (
        known.architectures == "any" or model.is_able("be_exported")
    ):
        return
    from limbeck.runtimes.architecture import describe_architecture  # noqa: PLC0415  (torch)

    yield from refusals(
        "checkpoint",
        lambda: describe_architecture(
            model.config, number_format=model.number_format, runtime=known, place=model.name
        ),
    )
