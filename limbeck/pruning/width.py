"""Narrowing the residual stream: the channels that its readers use least are cut everywhere.

A channel counts by what it contributes to the layers that read it, behind their norm: its root mean
square times the norm of its column, as a share of all channels', summed over the readers (Minitron:
Muralidharan et al. 2024, arXiv:2407.14679, sec. 3; the columns as in Wanda, arXiv:2306.11695).

A norm divides by the mean square of its input over all channels, so it says something else of fewer
channels. Its weights are scaled by what that changes in the mean over the calibration batches.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.norms import scale_norm
from limbeck.models.observation import Observer, Squares, observe
from limbeck.models.projections import PARTS, name_linears
from limbeck.models.structure import find_layers, find_submodule
from limbeck.pruning.rebuild import rebuild
from limbeck.pruning.shapes import describe_cut

READERS = {part: names[:-1] for part, names in PARTS.items()}
"""Projections that read the residual stream, by their block."""
WRITERS = {part: names[-1:] for part, names in PARTS.items()}


@dataclass(frozen=True)
class Stream:
    """Everything of a decoder that is as wide as its residual stream."""

    width: int
    columns: tuple[str, ...]
    """Matrices that read it; embeddings, which lie as they do."""
    rows: tuple[str, ...]
    """Matrices and biases that write to it."""
    norms: tuple[str, ...]
    readers: tuple[tuple[str, ...], ...]
    """Matrices that read the same norm's output."""


def find_stream(model: PreTrainedModel) -> Stream:
    """The residual stream of a decoder.

    Raises:
        CheckpointError: it has parts that are not known to read it or write to it.
    """
    width = model.config.get_text_config().hidden_size
    prefix, layers = find_layers(model)
    columns, rows, readers = [], [], []
    for index in range(len(layers)):
        for block in READERS:
            where = f"{prefix}.{index}.{block}"
            reading = name_linears(model, (f"{where}.{name}" for name in READERS[block]))
            writing = [f"{where}.{name}" for name in WRITERS[block]]
            for name in (*reading, *writing):
                if type(find_submodule(model, name)) is not nn.Linear:
                    raise CheckpointError(
                        f"{type(model).__name__}: has no float linear layer {name}; the width of "
                        "decoders built like Llama and Qwen3 can be cut"
                    )
            readers.append(reading)
            columns += [f"{name}.weight" for name in reading]
            rows += [f"{name}.{part}" for name in writing for part in ("weight", "bias")]
    names = {id(module): name for name, module in model.named_modules()}
    embeddings = model.get_input_embeddings(), model.get_output_embeddings()
    columns += [f"{names[id(item)]}.weight" for item in embeddings if item is not None]
    _check_embedding_scale(model)
    norms = tuple(_find_norms(model, width=width))
    _check_norms(model, norms=norms)
    stream = Stream(width, tuple(columns), tuple(rows), norms, tuple(readers))
    _check_whole(model, stream)
    return stream


def _find_norms(model: PreTrainedModel, *, width: int) -> Iterable[str]:
    """Norms of the stream: those inside a block normalise heads."""
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        inside = any(f".{block}." in f".{name}." for block in READERS)
        if list(own) == ["weight"] and own["weight"].shape == (width,) and not inside:
            yield name


@torch.no_grad()
def _check_norms(model: PreTrainedModel, *, norms: Sequence[str]) -> None:
    """Refuse norms that subtract the mean, which would be another of fewer channels."""
    kinds = {type(model.get_submodule(name)): model.get_submodule(name) for name in norms}
    if not kinds or "rms_norm_eps" not in model.config.get_text_config().to_dict():
        raise CheckpointError(
            f"{type(model).__name__}: its residual stream has no RMS norms with weights and a "
            "`rms_norm_eps`; leave hidden_ratio out"
        )
    for kind, norm in kinds.items():
        # A copy with numbers; of a model on the meta device there are none.
        tried = copy.deepcopy(norm).to_empty(device="cpu").float()
        tried.get_parameter("weight").fill_(1.0)
        given = torch.randn(2, tried.get_parameter("weight").numel()) + 1.0
        ratios = tried(given) / given
        if not torch.allclose(ratios, ratios[:, :1].expand_as(ratios), rtol=1e-3):
            raise CheckpointError(
                f"{type(model).__name__}: {kind.__name__} subtracts the mean, which would be "
                "another of fewer channels; leave hidden_ratio out"
            )


@torch.no_grad()
def _check_embedding_scale(model: PreTrainedModel) -> None:
    # Transformers' scaled embeddings hold their factor; those of plain torch have none.
    if type(model.get_input_embeddings()) is not nn.Embedding:
        raise CheckpointError(
            f"{type(model).__name__}: scales its embeddings by their width, so cutting the width "
            "would change the scale; leave hidden_ratio out"
        )


def _check_whole(model: PreTrainedModel, stream: Stream) -> None:
    norms = {f"{name}.weight" for name in stream.norms}
    known = norms | {*stream.columns, *stream.rows}
    inner = {
        f"{name.rpartition('.')[0]}.{part}"
        for name in stream.columns
        for part in ("bias", "weight")
    }
    unknown = [
        name
        for name, parameter in model.named_parameters()
        if name not in known | inner
        and stream.width in parameter.shape
        and not name.endswith(("q_norm.weight", "k_norm.weight"))
    ]
    if unknown:
        raise CheckpointError(
            f"{type(model).__name__}: {unknown[:4]} may belong to the residual stream, and no rule "
            "says how to cut them; leave hidden_ratio out"
        )


@torch.no_grad()
def score_channels(
    model: PreTrainedModel, *, stream: Stream, batches: Iterable[Batch]
) -> Float[Tensor, " width"]:
    """The shares that each channel has in what the stream's readers compute, summed."""
    found = {reading[0]: Squares() for reading in stream.readers}
    observe(model, observers=found, batches=batches)
    scores = torch.zeros(stream.width)
    for reading in stream.readers:
        columns = torch.stack(
            [model.get_parameter(f"{name}.weight").float().square().sum(dim=0) for name in reading]
        ).sum(dim=0)
        contribution = (columns * torch.as_tensor(found[reading[0]].total)).sqrt().cpu()
        scores += contribution / contribution.sum().clamp_min(1e-12)
    return scores


class _KeptNorm(Observer):
    """The norm of the kept channels over that of all, in the mean over tokens."""

    def __init__(self, kept: Sequence[int]) -> None:
        self.kept = list(kept)
        self.total, self.count = 0.0, 0

    @override
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        ratios = given[:, self.kept].norm(dim=-1) / given.norm(dim=-1).clamp_min(1e-12)
        self.total += float(ratios.sum())
        self.count += len(given)


def measure_kept_norms(
    model: PreTrainedModel, *, stream: Stream, kept: Sequence[int], batches: Iterable[Batch]
) -> dict[str, float]:
    """For each norm, the mean share of its input's length that the kept channels hold, 0 to 1."""
    found = {name: _KeptNorm(kept) for name in stream.norms}
    observe(model, observers=found, batches=batches)
    return {name: item.total / item.count if item.count else 1.0 for name, item in found.items()}


@torch.no_grad()
def mask_stream(
    model: PreTrainedModel, *, stream: Stream, kept: Sequence[int], kept_norms: Mapping[str, float]
) -> None:
    """Zero every other channel in place, and scale the norms for it."""
    gone = torch.ones(stream.width, dtype=torch.bool)
    gone[list(kept)] = False
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in stream.columns:
        parameters[name][:, gone] = 0.0
    for name in stream.rows:
        if name in parameters:
            parameters[name][gone] = 0.0
    for name, ratio in kept_norms.items():
        _scale(model.get_submodule(name), ratio)


def _scale(norm: nn.Module, factor: float) -> None:
    if not scale_norm(norm, factor):
        raise CheckpointError(
            f"{type(norm).__name__}: its weight is no factor; leave hidden_ratio out"
        )


@torch.no_grad()
def cut_stream(masked: PreTrainedModel, *, stream: Stream, kept: Sequence[int]) -> PreTrainedModel:
    """A new model without the channels that are masked, which answers as the masked one does."""
    smaller = take_channels(masked, stream=stream, kept=kept)
    # A norm divides by the mean over fewer channels now.
    for name in stream.norms:
        _scale(smaller.get_submodule(name), (stream.width / len(kept)) ** 0.5)
    return smaller


@torch.no_grad()
def take_channels(
    model: PreTrainedModel, *, stream: Stream, kept: Sequence[int]
) -> PreTrainedModel:
    """A new model of these channels, its norms' weights as they were.

    Raises:
        CheckpointError: further parameters depend on the width.
    """
    config = describe_cut(model.config, num_kept={"hidden": len(kept)})
    text = config.get_text_config()
    # What a norm adds to the mean square counts as much as before.
    text.rms_norm_eps *= stream.width / len(kept)
    index = torch.tensor(list(kept))
    norms = {f"{name}.weight" for name in stream.norms}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name in stream.columns:
            tensor = tensor[:, index]
        elif name in norms or name in stream.rows:
            tensor = tensor[index]
        tensors[name] = tensor.clone()
    return rebuild(model, config=config, tensors=tensors, fault="its width cannot be cut")
