"""Summed gradients of a step's micro-batches: on a CPU, one micro-batch a core.

A small model's products are too small to share among threads, but its micro-batches are not. Each
is differentiated on one thread and the sums are added in one order, so the result is the same to
the bit whatever the number of cores.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.models.batch import Batch
from limbeck.objectives.base import Loss

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`."""
TOP_PAD_BYTES = 64 * 2**20
KEPT_PARAMETER_BYTES = 2**28
"""Parameters of a model and its objective, up to which freed memory is kept."""


def keep_freed_memory(parameters: Iterable[Tensor]) -> None:
    """Let the C library reuse freed memory instead of returning it; where it is not glibc, nothing.

    A step frees and allocates every gradient. Returned to the system, each page of them would be
    mapped and cleared anew, which costs a mixture's step a tenth of its time. Nothing changes for
    a large model, frozen or not: in one heap, its blocks of hundreds of megabytes, of another size
    at each step, leave holes that no later one fits, and the heap grows until memory ends.
    """
    num_bytes = sum(item.nbytes for item in parameters)
    if not sys.platform.startswith("linux") or num_bytes > KEPT_PARAMETER_BYTES:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, TOP_PAD_BYTES)


class SummedGradients:
    """Differentiates micro-batches on a CPU's cores, and adds their gradients up."""

    def __init__(self, trained: Sequence[Tensor], *, num_workers: int) -> None:
        self.trained = list(trained)
        # A thread's own count of threads is set here; the step sets the library's, which is shared.
        self.pool = ThreadPoolExecutor(
            num_workers, initializer=torch.set_num_threads, initargs=(1,)
        )

    def __call__(
        self, batches: Sequence[Batch], *, compute_loss: Callable[[Batch], Loss]
    ) -> list[Loss]:
        """Each micro-batch's loss; the gradients are added to the parameters' own."""

        def differentiate(batch: Batch) -> tuple[Loss, tuple[Tensor | None, ...]]:
            loss = compute_loss(batch)
            return loss, torch.autograd.grad(loss.sum, self.trained, allow_unused=True)

        # The largest first: what is left for the end is then small, and no core waits for long.
        ordered = sorted(batches, key=lambda batch: -batch.input_ids.numel())
        losses = []
        with _single_threaded():
            for future in [self.pool.submit(differentiate, batch) for batch in ordered]:
                loss, gradients = future.result()
                self._add(gradients)
                losses.append(loss)
        return losses

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad += gradient

    def close(self) -> None:
        """End the threads; micro-batches not begun are dropped."""
        self.pool.shutdown(cancel_futures=True)


@contextmanager
def _single_threaded() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def draws_random(model: nn.Module) -> bool:
    """Whether a forward pass draws random numbers, whose order concurrent passes would mix up."""
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    return any(rates) or any(getattr(config, "attention_dropout", 0.0) for config in configs)
