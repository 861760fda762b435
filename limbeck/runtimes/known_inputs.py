"""What export refuses of a model before it runs, by the functions that refuse while it runs."""

import importlib.util
from collections.abc import Iterator

from limbeck.contracts.errors import UnknownNameError
from limbeck.models.known import KnownModel, Refusal, refusals
from limbeck.models.weight_files import find_weight_files
from limbeck.runtimes import RuntimeName, open_runtime
from limbeck.runtimes.base import Runtime


def refuse_export(
    model: KnownModel, *, runtime: RuntimeName, weights: str = "format"
) -> Iterator[Refusal]:
    """Whatever keeps a model from being written for a runtime."""
    known = open_runtime(runtime)
    if weights not in known.weights:
        error = UnknownNameError(weights, known=known.weights, what=f"weights of {runtime!r}")
        yield Refusal("weights", str(error))
        return
    missing = [name for name in known.packages if importlib.util.find_spec(name) is None]
    if missing:
        yield Refusal(
            "runtime",
            f"{runtime} needs {' and '.join(missing)}; install with "
            f"`pip install 'limbeck[{runtime}]'`",
        )
        return
    if known.architectures != "any":
        yield from refusals("checkpoint", lambda: _check_tokenizer(model, runtime=known))
    if model.number_format in known.formats and (
        known.architectures == "any"
        or (model.is_able("be_exported") and known.check_architecture is None)
    ):
        return
    from limbeck.runtimes.architecture import describe_architecture  # noqa: PLC0415  (torch)
    from limbeck.runtimes.tensors import find_safetensors  # noqa: PLC0415

    def check() -> None:
        found = describe_architecture(
            model.config, number_format=model.number_format, runtime=known, place=model.name
        )
        if model.folder is not None and find_weight_files(model.folder):
            find_safetensors(model.folder)
        if known.check_format is not None:
            known.check_format(model.codes, architecture=found, place=model.name)
        if known.check_architecture is not None:
            known.check_architecture(
                found, number_format=model.number_format, weights=weights, place=model.name
            )

    yield from refusals("checkpoint", check)


def _check_tokenizer(model: KnownModel, *, runtime: Runtime) -> None:
    if model.tokenizer is None or model.tokenizer.folder is None:
        return
    from limbeck.runtimes.tokenizer_files import check_tokenizer  # noqa: PLC0415  (torch)

    check_tokenizer(model.tokenizer.loaded, place=model.name)
    if runtime.check_tokenizer is not None:
        runtime.check_tokenizer(model.tokenizer.loaded, place=model.name)
