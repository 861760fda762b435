"""Logits in eight bits: a quarter of the memory that float32 takes."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from typing_extensions import override

from limbeck.distillation.losses.top_k_log_probs import Scalar
from limbeck.distillation.targets import FullLogits, LogProbs, TeacherOutput, Terms

LEVELS = 127


@final
@dataclass(frozen=True, eq=False)
class Int8Logits(TeacherOutput):
    """The logits of every token as integers, with one scale a position."""

    codes: Int8[Tensor, "kept vocab"]
    scale: Float[Tensor, "kept 1"]

    @override
    def full_logits(self) -> Float[Tensor, "kept vocab"]:
        return self.codes * self.scale

    @override
    def log_probs(self, *, vocab: int, temperature: float) -> Float[Tensor, "kept vocab"]:
        return self._restored().log_probs(vocab=vocab, temperature=temperature)

    @override
    def divergence_terms(
        self, terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], temperature: Scalar
    ) -> LogProbs:
        return self._restored().divergence_terms(
            terms, student_logits=student_logits, temperature=temperature
        )

    def _restored(self) -> FullLogits:
        return FullLogits(self.full_logits())


def quantize_logits(logits: Float[Tensor, "kept vocab"]) -> Int8Logits:
    """The nearest codes; the largest magnitude of each position becomes 127."""
    scale = logits.abs().amax(dim=1, keepdim=True).clamp(min=1e-10) / LEVELS
    return Int8Logits(torch.round(logits / scale).to(torch.int8), scale)
