"""A model run up to one of its blocks, from what the block before gave back.

Blocks that are done compute nothing: they give back the output of the last of them, and the model's
own code makes masks and positions, so that nothing has to be known of an architecture. Left out:
architectures whose blocks read more than the block before them, which run whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.structure import find_layers

BlockOutput = Tensor | tuple[object, ...]


class _PassEndsError(Exception):
    """Ends a forward pass after a block."""


class BlockByBlock:
    """Blocks of a model are done one after another; a pass over a batch begins after them."""

    def __init__(self, model: PreTrainedModel, *, batches: Sequence[Batch]) -> None:
        self.model = model
        self.forward = KeptForward(model)
        self.batches = batches
        try:
            self.blocks: list[nn.Module] = list(find_layers(model)[1])
        except CheckpointError:
            self.blocks = []
        self.resumes = bool(self.blocks) and self._check_resuming()
        """Whether blocks that are done are spared; else every pass computes them again."""
        self._num_done = 0
        self._outputs: list[BlockOutput] = []
        """Of the last block that is done, for each batch."""

    def run(self, index: int, *, stop_after: nn.Module | None = None) -> BlockOutput | None:
        """One batch, from the blocks that are done on; what the last module gave back."""
        if not self._num_done:
            return self._run(index, stop_after=stop_after)
        with _given_back(self.blocks[: self._num_done], self._outputs[index]):
            return self._run(index, stop_after=stop_after)

    def finish(self, block: nn.Module) -> None:
        """Count the next block as done, with what it computes now."""
        if not self.resumes:
            return
        made = [self.run(index, stop_after=block) for index in range(len(self.batches))]
        self._outputs = [output for output in made if output is not None]
        assert len(self._outputs) == len(self.batches)
        self._num_done += 1

    def _run(self, index: int, *, stop_after: nn.Module | None) -> BlockOutput | None:
        made: list[BlockOutput] = []

        def end(_: nn.Module, inputs: object, output: BlockOutput) -> None:
            made.append(output)
            raise _PassEndsError

        handle = None if stop_after is None else stop_after.register_forward_hook(end)
        try:
            self.forward(self.batches[index])
        except _PassEndsError:
            return made[0]
        finally:
            if handle is not None:
                handle.remove()
        return None

    def _check_resuming(self) -> bool:
        """Whether the first half of the blocks, given back, leads to the same logits.

        Between both the tokens run backwards, so that nothing that blocks leave for later ones is
        found.
        """
        batch = self.batches[0]
        half = (len(self.blocks) - 1) // 2
        expected = self.forward(batch).logits
        output = self._run(0, stop_after=self.blocks[half])
        if output is None:
            return False
        self.forward(replace(batch, input_ids=batch.input_ids.flip(1)))
        try:
            with _given_back(self.blocks[: half + 1], output):
                return torch.allclose(self.forward(batch).logits, expected)
        except RuntimeError:  # what was left has another shape
            return False


@contextmanager
def _given_back(blocks: Sequence[nn.Module], output: BlockOutput) -> Iterator[None]:
    """Within, these blocks compute nothing and give back one output."""
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = lambda *_, **__: output
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward
