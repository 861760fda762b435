"""Cards and machines: what they hold, what they compute, and what they reach in practice.

Peaks are as published for each product; the shares of them that are reached are assumptions,
stated here.
"""

import math
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator

from limbeck.contracts.config import Config
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.fields import PositiveInt
from limbeck.sizing.number_formats import FormatSize
from limbeck.sizing.parameters import ModelSize

Precision = Literal["float32", "bfloat16"]
Recomputing = Literal["none", "layers"]
RECOMPUTING_RATIO = 4 / 3
"""Arithmetic of a training step whose layers run forward once more, over that of a plain one."""
MACHINE_UTILISATION = {"dense": 0.45, "sparse": 0.2}
"""Arithmetic of training over that of large matrix products on the same machine.

Measured on one CPU core, whole optimizer steps in float32, batches of 32 x 40 tokens: dense 0.27 at
0.6 M parameters, 0.48 at 4 M, 0.62 at 21 M; 128 experts of width 48 0.16, with 128 x 40 tokens
0.22. Small products wait for memory and for the layers between them."""
GPU_UTILISATION = {"dense": 0.4, "sparse": 0.2}
"""Arithmetic of training over a card's peak; assumed, for large models.

Reported: dense 0.46 (PaLM 540B, Chowdhery et al. 2022, sec. 4.1, arXiv:2204.02311). A mixture
exchanges tokens or weights among cards besides."""
BANDWIDTH_UTILISATION = 0.6
"""Of a card's memory bandwidth while decoding; assumed."""
LAYER_SECONDS = 1e-4
"""To start the products of one layer of one decoding step; assumed. It binds small models."""
USABLE_RATIO = 0.92
"""Of a card's memory; the rest is the driver's and the exchange library's, or lost between blocks.
Assumed."""


@dataclass(frozen=True)
class Gpu:
    """One card."""

    memory_bytes: int
    half_flops: float
    """Peak of dense 16-bit matrix products a second, sums in float32."""
    float_flops: float
    """Peak of float32 products a second, TF32 left out, as torch multiplies by default."""
    bytes_per_second: float
    """Bandwidth of its memory."""
    has_bfloat16: bool = True
    """Whether its 16-bit peak holds for bfloat16 too, or for float16 only."""

    @property
    def usable_bytes(self) -> int:
        """What a model may fill."""
        return int(self.memory_bytes * USABLE_RATIO)

    def peak_flops(self, precision: Precision) -> float:
        """Of training in a precision; a card without bfloat16 computes it in float32."""
        half = precision == "bfloat16" and self.has_bfloat16
        return self.half_flops if half else self.float_flops


GPUS = {
    "T4-16GB": Gpu(16 * 10**9, 65e12, 8.1e12, 320e9, has_bfloat16=False),
    "V100-16GB": Gpu(16 * 10**9, 125e12, 15.7e12, 900e9, has_bfloat16=False),
    "V100-32GB": Gpu(32 * 10**9, 125e12, 15.7e12, 900e9, has_bfloat16=False),
    "A10-24GB": Gpu(24 * 10**9, 125e12, 31.2e12, 600e9),
    "L4-24GB": Gpu(24 * 10**9, 121e12, 30.3e12, 300e9),
    "RTX4090-24GB": Gpu(24 * 10**9, 165.2e12, 82.6e12, 1008e9),
    "L40S-48GB": Gpu(48 * 10**9, 362e12, 91.6e12, 864e9),
    "A100-40GB": Gpu(40 * 10**9, 312e12, 19.5e12, 1555e9),
    "A100-80GB": Gpu(80 * 10**9, 312e12, 19.5e12, 2039e9),
    "H100-80GB": Gpu(80 * 10**9, 989.5e12, 67e12, 3350e9),
    "H200-141GB": Gpu(141 * 10**9, 989.5e12, 67e12, 4800e9),
}
"""As NVIDIA publishes them for each product (SXM boards where there are several), figures with
sparsity halved; RTX 4090: Ada architecture whitepaper, appendix A, 16-bit with float32 sums."""


def _known(name: str) -> str:
    if name not in GPUS:
        raise ValueError(str(UnknownNameError(name, known=GPUS, what="GPU")))
    return name


class Cards(Config):
    """A number of equal cards in one job."""

    gpu: Annotated[str, AfterValidator(_known)]
    """One of the cards whose figures are known."""
    count: PositiveInt = 1

    def __str__(self) -> str:
        return f"{self.count} x {self.gpu}"

    @property
    def card(self) -> Gpu:
        """The figures of one of them."""
        return GPUS[self.gpu]


class Serving(Cards):
    """Cards that answer, and how much at a time."""

    batch_size: PositiveInt = 1
    """Answers decoded side by side."""
    context_tokens: PositiveInt = 2048
    """Question and answer, kept in the cache; less where the model knows fewer positions."""


def _kind(size: ModelSize) -> str:
    return "sparse" if size.expert_parameters else "dense"


def training_tokens_per_second(
    size: ModelSize, cards: Cards, *, precision: Precision, recomputing: Recomputing
) -> float:
    """What the cards learn together, padding included, from peak and assumed utilisation."""
    flops = size.training_flops * (RECOMPUTING_RATIO if recomputing == "layers" else 1.0)
    reached = cards.card.peak_flops(precision) * GPU_UTILISATION[_kind(size)]
    return cards.count * reached / flops


def decode_tokens_per_second(size: ModelSize, stored: FormatSize, serving: Serving) -> float:
    """New tokens of all answers decoded side by side; the slowest of reading, computing and
    starting the products binds.

    Every step reads the weights once: of the experts those that some answer picks, E (1 - (1 -
    K/E)^batch) of E when they pick at random. Each answer reads its own cache. Layers on several
    cards work one after the other, so more cards are no faster.
    """
    batch, card = serving.batch_size, serving.card
    picked = 1 - (1 - size.picked_ratio) ** batch
    weights = stored.total_bytes - stored.lookup_bytes - (1 - picked) * stored.expert_bytes
    read = weights + batch * size.kv_cache_bytes * serving.context_tokens
    reading = read / (card.bytes_per_second * BANDWIDTH_UTILISATION)
    computing = batch * size.forward_flops / (card.half_flops * GPU_UTILISATION[_kind(size)])
    return batch / max(reading, computing, size.shape.num_layers * LAYER_SECONDS)


@dataclass(frozen=True)
class Speed:
    """What this machine computes per second in large float32 matrix products."""

    flops_per_second: float
    device: str
    num_threads: int


def measure_speed(*, device: torch.device, seconds: float = 0.3) -> Speed:
    """The best rate of 1024 x 1024 float32 products within the given time."""
    side = 1024
    left, right = torch.randn(2, side, side, device=device)
    product = left @ right
    best = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.matmul(left, right, out=product)
        float(product[0, 0])
        best = min(best, time.perf_counter() - start)
    return Speed(2 * side**3 / best, str(device), torch.get_num_threads())


def estimate_training_seconds(size: ModelSize, *, num_tokens: int, speed: Speed) -> float:
    """Time to train on so many tokens, padding included; for planning, not for reports."""
    efficiency = MACHINE_UTILISATION[_kind(size)]
    return size.training_flops * num_tokens / (speed.flops_per_second * efficiency)
