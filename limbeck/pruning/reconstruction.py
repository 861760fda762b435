"""Weights of a cut model fitted, so that its layers make what those of the uncut model make.

A cut takes away what other weights counted on, and every layer behind it reads something else. So
each linear layer is fitted by least squares to outputs of the uncut model, in the order in which
they run, each fed by the fitted ones before it (He et al. 2017, arXiv:1707.06168, sec. 3: channels
of a convolution, there too with what the uncut network makes as the goal).

A layer that adds to the residual stream is fitted to what the stream should be behind it (sec. 3.3
there), or behind the layers that were left out after its own, so that it makes up for whatever was
lost before. Where its output is changed before it is added, as by a norm (Gemma 3), it is fitted to
its output in the uncut model. Left out: embeddings, the head, norms, biases, experts, and attention
of other forms than projections of queries, keys and values.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.env.progress import track
from limbeck.models.batch import Batch
from limbeck.models.block_by_block import BlockByBlock
from limbeck.models.linear_inputs import find_readers
from limbeck.pruning.goals import compare, find_added, find_goals
from limbeck.pruning.kept_parts import KeptParts, Span, pair_blocks
from limbeck.pruning.least_squares import Regression

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedLayers:
    """How many linear layers were fitted, and how many stay as they were."""

    num_fitted: int
    num_left: int
    """Because fewer tokens were measured than they have columns, or a pass runs them not once."""

    def metrics(self) -> dict[str, object]:
        """Both counts."""
        return {"reconstructed_layers": self.num_fitted, "unreconstructed_layers": self.num_left}


@torch.no_grad()
def reconstruct(
    cut: PreTrainedModel,
    *,
    uncut: PreTrainedModel,
    kept: KeptParts,
    batches: Sequence[Batch],
    damping_ratio: float,
) -> FittedLayers:
    """Fit the linear layers of a cut model in place.

    Raises:
        CheckpointError: what a layer reads or makes is not finite.
    """
    assert batches
    assert kept.layers[0] == 0
    states = [(model, model.training) for model in (cut, uncut)]
    batches = [batch.to(cut.device) for batch in batches]
    num_fitted = num_linears = 0
    try:
        for model, _ in states:
            model.eval()
        own, goals = (BlockByBlock(model, batches=batches) for model in (cut, uncut))
        with track("reconstruct", total=len(own.blocks), unit="block") as advance:
            for span in pair_blocks(own.blocks, goals.blocks, uncut=uncut, kept=kept):
                num_linears += len(span.linears)
                num_fitted += _fit_block(span, own=own, goals=goals, damping_ratio=damping_ratio)
                own.finish(span.block)
                for source in span.sources:
                    goals.finish(source)
                advance(1)
    finally:
        for model, training in states:
            model.train(training)
    if num_left := num_linears - num_fitted:
        logger.warning(
            "reconstruction: %d of %d linear layers stay as they were, because they have more "
            "columns than %d tokens were measured; set `reconstruction.num_records` higher",
            num_left,
            num_linears,
            sum(int(batch.tokens.sum()) for batch in batches),
        )
    return FittedLayers(num_fitted, num_left)


def _fit_block(span: Span, *, own: BlockByBlock, goals: BlockByBlock, damping_ratio: float) -> int:
    """Fit the layers of a block; how many."""
    readers = find_readers(span.linears, run=partial(own.run, 0, stop_after=span.block))
    turns = [item.names for item in readers if item.num_calls == 1]
    in_stream = find_added(span, passes=goals)
    wanted = [
        find_goals(turns, span=span, passes=goals, index=index, in_stream=in_stream)
        for index in range(len(goals.batches))
    ]
    num_fitted = 0
    for names in turns:
        regression = Regression()
        for index, goal in enumerate(wanted):
            regression.add(
                *compare(names, span=span, passes=own, index=index, goal=goal, in_stream=in_stream)
            )
        if regression.num_tokens >= span.linears[names[0]].in_features:
            _add_to(span, names=names, change=regression.solve(damping_ratio=damping_ratio))
            num_fitted += len(names)
    return num_fitted


def _add_to(span: Span, *, names: Sequence[str], change: Float[Tensor, "rows columns"]) -> None:
    if not change.isfinite().all():
        raise CheckpointError(
            f"{', '.join(names)}: what they read or make is not finite on the training records, "
            "so they cannot be fitted to the uncut model; set `reconstruction: null`, or train the "
            "checkpoint again"
        )
    layers = [span.linears[name] for name in names]
    for layer, part in zip(
        layers, change.split([item.out_features for item in layers]), strict=True
    ):
        layer.weight += part.to(layer.weight.dtype)
