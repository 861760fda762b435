"""What a student missed of its mixture-of-experts teacher, by the expert that knew it."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.distillation.losses.divergences import forward_kl_terms
from limbeck.distillation.teachers.router_sampling import find_gates, read_gate
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward


@torch.no_grad()
def measure_misses(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Batch], *, vocab: int
) -> dict[str, Any]:
    """KL(teacher || student) at T = 1 by first choice of expert; empty without router or token.

    A token's first choice in a layer is the expert that weighs most. `layers` holds each expert's
    mean in nats (0 for one that was nobody's first choice), `tokens` how many it is over.
    """
    gates = find_gates(teacher)
    if not gates:
        return {}
    firsts: dict[int, Tensor] = {}
    num_experts: dict[int, int] = {}

    def note(layer: int, _: nn.Module, __: Sequence[Any], said: Any) -> None:
        logits, weights, picked = read_gate(said)
        firsts[layer] = picked.gather(1, weights.argmax(dim=1, keepdim=True)).squeeze(1).cpu()
        num_experts[layer] = logits.shape[1]

    differences: list[Tensor] = []
    choices: dict[int, list[Tensor]] = {layer: [] for layer, _ in gates}
    with ExitStack() as stack:
        for layer, gate in gates:
            stack.callback(gate.register_forward_hook(partial(note, layer)).remove)
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
        return {}
    sums, counts = zip(
        *(
            sum_by_expert(kl, torch.cat(chosen), num_experts=num_experts[layer])
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


def sum_by_expert(
    kl: Float[Tensor, " kept"], chosen: Int[Tensor, " kept"], *, num_experts: int
) -> tuple[Float[Tensor, " experts"], Int[Tensor, " experts"]]:
    """Summed KL and number of tokens of each expert."""
    sums = torch.zeros(num_experts).index_add_(0, chosen, kl)
    return sums, torch.bincount(chosen, minlength=num_experts)


def find_most_missed(misses: dict[str, Any]) -> dict[str, Any]:
    """The expert with the largest summed KL: its layer, counted from 1, number, mean and tokens."""
    found = [
        (kl * tokens, {"layer": layer, "expert": expert, "kl": kl, "tokens": tokens})
        for layer, kls, counts in zip(
            misses["numbers"], misses["layers"], misses["tokens"], strict=True
        )
        for expert, (kl, tokens) in enumerate(zip(kls, counts, strict=True))
    ]
    return max(found, key=lambda item: item[0])[1]
