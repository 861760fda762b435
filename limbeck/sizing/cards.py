"""Cards: what each holds, what it computes at most, and how many are in a job.

Peaks are as published for each product.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from limbeck.contracts.config import Config, NameIn
from limbeck.contracts.fields import PositiveInt, Precision

Recomputing = Literal["none", "layers"]


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


class Cards(Config):
    """A number of equal cards in one job."""

    gpu: Annotated[str, NameIn(GPUS, "GPU")]
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
