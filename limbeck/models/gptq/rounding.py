"""A model's linear layers rounded by GPTQ, block after block, each fed by the rounded ones before.

Within a block, layers that read one tensor are rounded together, before those that read what they
make. Left out: embeddings and the language head, whose codes stay the nearest, and stacked experts,
which are no linear layers and stay floats.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.env.progress import track
from limbeck.models.batch import Batch
from limbeck.models.block_by_block import BlockByBlock
from limbeck.models.linear_inputs import MeanProducts, Readers, find_readers
from limbeck.models.observation import observing
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.gptq import choose_codes
from limbeck.quantization.qat import find_replaced

logger = logging.getLogger(__name__)

MAX_PASSES = 8
"""Over all batches, for one block: experts that are linear layers are many, and all but the first
layers of a block are then measured at once."""


@dataclass
class RoundedLayers:
    """How many linear layers have codes that GPTQ chose, and what that gained."""

    num_chosen: int = 0
    num_nearest: int = 0
    """Their codes stay the nearest: fewer tokens reached them than they have columns, or their
    weight is another layer's too, or their format finds the scale of chosen codes anew."""
    error: float = 0.0
    """Of the outputs of the chosen ones, squared and summed, on what was measured."""
    nearest_error: float = 0.0
    """The same by the nearest codes."""

    def metrics(self) -> dict[str, int | float]:
        """Both counts, and the share of the nearest codes' error that is left."""
        ratio = self.error / self.nearest_error if self.nearest_error else 1.0
        return {
            "gptq_layers": self.num_chosen,
            "gptq_nearest_layers": self.num_nearest,
            "gptq_error_ratio": ratio,
        }


@torch.no_grad()
def round_by_gptq(
    model: PreTrainedModel,
    *,
    batches: Iterable[Batch],
    number_format: QuantizedFormat,
    damping_ratio: float,
) -> RoundedLayers:
    """Put a float model's linear layers on the grids of their formats, in place.

    Inputs are measured on the batches. The weights are what the chosen codes stand for, and round
    to these codes again, so that training starts from them.

    Raises:
        CheckpointError: what a layer reads is not finite.
    """
    training = model.training
    model.eval()
    passes = BlockByBlock(model, batches=[batch.to(model.device) for batch in batches])
    layers, num_nearest = find_rounded(model, number_format=number_format)
    done = RoundedLayers(num_nearest=num_nearest)
    finish = partial(
        _round_layers, done, passes=passes, number_format=number_format, damping_ratio=damping_ratio
    )
    inside = [{id(item) for item in block.modules()} for block in passes.blocks]
    finish({name: item for name, item in layers.items() if id(item) not in set().union(*inside)})
    with track("gptq", total=len(inside), unit="block") as advance:
        for block, items in zip(passes.blocks, inside, strict=True):
            finish({name: item for name, item in layers.items() if id(item) in items}, block=block)
            passes.finish(block)
            advance(1)
    if layers and not done.num_chosen:
        logger.warning(
            "gptq: every linear layer keeps its nearest codes, because fewer tokens than it has "
            "columns were measured; set `num_records` higher"
        )
    model.train(training)
    return done


def find_rounded(
    model: PreTrainedModel, *, number_format: QuantizedFormat
) -> tuple[dict[str, nn.Linear], int]:
    """The layers whose codes may be chosen, and the number of all others."""
    head = model.get_output_embeddings()
    replaced = dict(find_replaced(model, described=number_format.describe()))
    uses = Counter(id(item.weight) for item in replaced.values())
    linears = {
        name: item
        for name, item in replaced.items()
        if isinstance(item, nn.Linear) and item is not head
    }
    chosen = {
        name: item
        for name, item in linears.items()
        if uses[id(item.weight)] == 1 and number_format.for_layer(name).keeps_grid
    }
    return chosen, len(linears) - len(chosen)


def _round_layers(
    done: RoundedLayers,
    layers: Mapping[str, nn.Linear],
    *,
    passes: BlockByBlock,
    number_format: QuantizedFormat,
    damping_ratio: float,
    block: nn.Module | None = None,
) -> None:
    """Round the layers of a block, or those of none, and count them."""
    if not layers:
        return
    readers = find_readers(layers, run=partial(passes.run, 0, stop_after=block))
    first, rest = readers[: MAX_PASSES - 1], readers[MAX_PASSES - 1 :]
    # Layers outside of blocks are measured in one pass, which is one of the whole model.
    turns = [readers] if block is None else [*([item] for item in first), *filter(None, [rest])]
    for turn in turns:
        found = _measure(turn, layers=layers, passes=passes, block=block)
        for item, products in zip(turn, found, strict=True):
            for name in item.names:
                _round_layer(
                    name,
                    layers[name],
                    products=products,
                    number_format=number_format,
                    damping_ratio=damping_ratio,
                    done=done,
                )


def _measure(
    turn: Sequence[Readers],
    *,
    layers: Mapping[str, nn.Linear],
    passes: BlockByBlock,
    block: nn.Module | None,
) -> list[MeanProducts]:
    """What layers read over all batches; one of those that read the same stands for all."""
    found = {readers.names[0]: MeanProducts() for readers in turn}
    # A pass need not go on behind the only layer that is measured.
    stop = layers[turn[0].names[0]] if len(turn) == 1 and turn[0].num_calls == 1 else block
    for index, batch in enumerate(passes.batches):
        with observing(passes.model, observers=found, tokens=batch.tokens):
            passes.run(index, stop_after=stop)
    return list(found.values())


def _round_layer(
    name: str,
    layer: nn.Linear,
    *,
    products: MeanProducts,
    number_format: QuantizedFormat,
    damping_ratio: float,
    done: RoundedLayers,
) -> None:
    if products.num_tokens < layer.in_features:
        done.num_nearest += 1
        return
    hessian = products.mean()
    if not hessian.isfinite().all():
        raise CheckpointError(
            f"{name}: what it reads is not finite on the training records, so that its codes "
            "cannot be chosen; set `gptq: null`, or train the checkpoint again"
        )
    rounded = choose_codes(
        layer.weight,
        hessian=hessian,
        number_format=number_format.for_layer(name),
        damping_ratio=damping_ratio,
    )
    layer.weight.copy_(rounded.weight)
    done.num_chosen += 1
    done.error += rounded.error
    done.nearest_error += rounded.nearest_error
