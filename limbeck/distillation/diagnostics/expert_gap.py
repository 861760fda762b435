"""How far a student is from its mixture-of-experts teacher, by the expert of each token."""

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.distillation.losses.divergences import forward_kl_terms
from limbeck.distillation.teachers.router_sampling import find_gates, read_gate
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.pruning.experts import sum_by_expert


class ExpertGap(TypedDict):
    """KL(teacher || student) by the teacher's experts."""

    kl: float
    """Mean over all tokens, in nats."""
    numbers: list[int]
    """The layers, counted from 1."""
    layers: list[list[float]]
    """Mean of each expert of each layer; 0 for one that was no token's first choice."""
    tokens: list[list[int]]
    """How many tokens each mean is over."""


@torch.no_grad()
def measure_expert_gap(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Batch], *, vocab: int
) -> ExpertGap | None:
    """KL(teacher || student) at T = 1 by first choice of expert; None without router or token.

    A token's first choice in a layer is the expert of the largest weight.
    """
    gates = find_gates(teacher)
    if not gates:
        return None
    firsts: dict[int, Tensor] = {}
    num_experts: dict[int, int] = {}

    def capture(layer: int, _: nn.Module, __: object, output: object) -> None:
        logits, weights, picked = read_gate(output)
        firsts[layer] = picked.gather(1, weights.argmax(dim=1, keepdim=True)).squeeze(1).cpu()
        num_experts[layer] = logits.shape[1]

    differences: list[Tensor] = []
    choices: dict[int, list[Tensor]] = {layer: [] for layer, _ in gates}
    with ExitStack() as stack:
        for layer, gate in gates:
            stack.callback(gate.register_forward_hook(partial(capture, layer)).remove)
        models = [KeptForward(model.eval()) for model in (student, teacher)]
        for batch in batches:
            batch = batch.to(student.device)
            kept = batch.kept.reshape(-1).cpu()
            ours, theirs = (model(batch).logits[:, :vocab].float() for model in models)
            differences.append(token_kl(student=ours, teacher=theirs).cpu())
            for layer, chosen in choices.items():
                chosen.append(firsts[layer][kept])
    kl = torch.cat(differences) if differences else torch.zeros(0)
    if not len(kl):
        return None
    sums, counts = zip(
        *(
            sum_by_expert(kl, picked=torch.cat(chosen), num_experts=num_experts[layer])
            for layer, chosen in choices.items()
        ),
        strict=True,
    )
    return {
        "kl": float(kl.mean()),
        "numbers": [layer + 1 for layer in choices],
        "layers": [(s / n.clamp(min=1)).tolist() for s, n in zip(sums, counts, strict=True)],
        "tokens": [n.tolist() for n in counts],
    }


def token_kl(
    *, student: Float[Tensor, "kept vocab"], teacher: Float[Tensor, "kept vocab"]
) -> Float[Tensor, " kept"]:
    """KL(teacher || student) of each token, from logits."""
    ours, theirs = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
    return forward_kl_terms(ours, theirs).sum(dim=-1)


def find_largest_gap(gap: ExpertGap) -> dict[str, int | float]:
    """The expert with the largest summed KL: its layer, counted from 1, number, mean and tokens."""
    found = [
        (kl * tokens, {"layer": layer, "expert": expert, "kl": kl, "tokens": tokens})
        for layer, kls, counts in zip(gap["numbers"], gap["layers"], gap["tokens"], strict=True)
        for expert, (kl, tokens) in enumerate(zip(kls, counts, strict=True))
    ]
    return max(found, key=lambda item: item[0])[1]
