"""Cards and machines: what they compute, and what they reach of it in practice.

Peaks are as published for each product; the shares of them that are reached are assumptions,
stated here.
"""

from limbeck.contracts.fields import Precision
from limbeck.sizing.cards import Cards, Recomputing, Serving
from limbeck.sizing.machine_speed import Speed
from limbeck.sizing.number_formats import FormatSize
from limbeck.sizing.parameters import ModelSize

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


def estimate_training_seconds(size: ModelSize, *, num_tokens: int, speed: Speed) -> float:
    """Time to train on so many tokens, padding included; for planning, not for reports."""
    efficiency = MACHINE_UTILISATION[_kind(size)]
    return size.training_flops * num_tokens / (speed.flops_per_second * efficiency)
