"""Whether a checkpoint made from a GGUF file cuts text and predicts tokens as llama.cpp does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.gguf.header import FLOAT_TYPES, Header
from limbeck.models.gguf.llama_cpp import LlamaCppModel
from limbeck.models.tokenizer_identity import PROBES

MAX_MEAN_KL = 0.01
"""Of a file of floats: both compute the same in another order, llama.cpp partly in 16 bits."""
MAX_MEAN_KL_QUANTIZED = 0.05
"""Of a file of codes: llama.cpp rounds activations to 8 bits as well, which the unpacked model
does not. Measured 0.004 (Q4_1) and 0.011 (Q4_K_M); a wrong order of rows costs nats."""
NUM_STEPS = 6
"""Tokens that each text goes on for."""
NUM_LIKELIEST = 100
FEWEST_TOKENS, MOST_TOKENS = 4, 32


@dataclass(frozen=True)
class Agreement:
    """How near the unpacked model lies to llama.cpp."""

    num_positions: int
    mean_kl: float
    """KL(llama.cpp || unpacked) in nats, over the likeliest tokens and all others as one."""
    argmax_agreement_ratio: float


def compare_tokens(
    tokenizer: PreTrainedTokenizerBase, *, reference: LlamaCppModel, header: Header
) -> None:
    """Accept the tokenizer.

    Raises:
        CheckpointError: it makes other tokens of a text than llama.cpp does.
    """
    for text in filter(None, PROBES):
        found = tokenizer.encode(text, add_special_tokens=False)
        expected = reference.encode(text)
        if found != expected:
            first = next(i for i in range(len(found)) if found[: i + 1] != expected[: i + 1])
            raise CheckpointError(
                f"{header.path}: its tokenizer ({header.values.get('tokenizer.ggml.model')}, "
                f"{header.pre_tokenizer}) cannot be rebuilt: {text[:40]!r} becomes "
                f"{found[first : first + 5]} from token {first} on, in llama.cpp "
                f"{expected[first : first + 5]}; name the folder of the published tokenizer as "
                "`tokenizer`"
            )


def compare_predictions(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    reference: LlamaCppModel,
    header: Header,
) -> Agreement:
    """How near the predictions lie, token by token along llama.cpp's own choices.

    Raises:
        ParityError: they lie farther apart than rounding explains.
    """
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    kls, equal = [], []
    for text in PROBES:
        tokens = [*start, *tokenizer.encode(text, add_special_tokens=False)][:MOST_TOKENS]
        if len(tokens) < FEWEST_TOKENS:
            continue
        rows = list(_walk(tokens, reference=reference))
        if not rows:
            continue
        with torch.no_grad():
            ids = torch.tensor([rows[-1][0]])
            logs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(dim=-1)
        for given, likeliest in rows:
            row = logs[len(given) - 1]
            kls.append(kl_of_likeliest(likeliest, log_probs=row))
            equal.append(int(row.argmax()) == next(iter(likeliest)))
    count = max(len(kls), 1)
    found = Agreement(len(kls), sum(kls) / count, sum(equal) / count)
    floats = all(item.type in FLOAT_TYPES for item in header.tensors)
    limit = MAX_MEAN_KL if floats else MAX_MEAN_KL_QUANTIZED
    if not found.mean_kl <= limit:
        raise ParityError(
            f"{header.path}: the unpacked model does not predict what llama.cpp predicts from the "
            f"same file: mean KL {found.mean_kl:.3g} nats, expected at most {limit}; arg-max "
            f"agrees at {found.argmax_agreement_ratio:.3f} of {found.num_positions} positions. "
            "Transformers reads this file wrongly; name the published checkpoint's folder"
        )
    return found


def _walk(
    tokens: list[int], *, reference: LlamaCppModel
) -> Iterator[tuple[list[int], dict[int, float]]]:
    """Growing texts, and what llama.cpp expects after each."""
    for _ in range(NUM_STEPS):
        likeliest = reference.next_tokens(tokens, num=NUM_LIKELIEST)
        if not likeliest:
            return
        yield list(tokens), likeliest
        tokens = [*tokens, next(iter(likeliest))]


def kl_of_likeliest(likeliest: dict[int, float], *, log_probs: Float[Tensor, " vocab"]) -> float:
    """KL in nats from a distribution known at its likeliest tokens, the others taken as one."""
    known = torch.tensor([*likeliest.values()], dtype=torch.float64)
    ours = log_probs[torch.tensor([*likeliest])].double()
    rests = [max(1.0 - float(item.exp().sum()), 1e-12) for item in (known, ours)]
    kl = float((known.exp() * (known - ours)).sum()) + rests[0] * math.log(rests[0] / rests[1])
    return max(kl, 0.0)
