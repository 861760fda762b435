"""One mixture layer, ours and others': 128 experts, two a token, hidden and width 256.

Gate, experts and weighted sum, forward or forward and backward. All take turns on the same tokens
with the same weights, so all route alike; that their outputs agree is checked first. A ratio is the
median over turns of two times measured one after the other, with the least and the largest of the
turns, and `_best` compares the best time of each side. Every side has a pass before the first that
counts. Left out: attention, whole models.

Freed memory is kept, as training keeps it; otherwise the pages of the gradients cost every mixture
more than its arithmetic.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from reporting import environment, make_parser, medians, name_interval, report
from torch import Tensor, nn
from torch.nn import functional
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Experts,
    DeepseekV3TopkRouter,
)

from limbeck.models.moe.kernels import experts_op
from limbeck.models.moe.layers import Gate, GateRules, SparseFeedForward
from limbeck.training.cpu_microbatches import keep_freed_memory

EXPERTS, PICKS, HIDDEN, WIDTH = 128, 2, 256, 256
TOKENS = (1, 256, 2048, 8192)
THREADS = (1, 2)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PASSES = ("forward", "train")
TOLERANCES = {"fp32": 1e-5, "bf16": 3e-2}
GEMM = 2048
DECODE_EXPERTS = (8, 128, 512)


class Ours(nn.Module):
    """The layer of this package."""

    def __init__(self, num_experts: int = EXPERTS) -> None:
        super().__init__()
        self.layer = SparseFeedForward(
            GateRules(PICKS, scoring="sigmoid"),
            num_experts=num_experts,
            hidden=HIDDEN,
            width=WIDTH,
            activation="silu",
        )
        for item in self.layer.parameters():
            nn.init.normal_(item, std=HIDDEN**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Transformers(nn.Module):
    """DeepSeek-V3's router and routed experts of transformers, by `grouped_mm`."""

    def __init__(self, ours: SparseFeedForward) -> None:
        super().__init__()
        config = DeepseekV3Config(
            hidden_size=HIDDEN,
            moe_intermediate_size=WIDTH,
            n_routed_experts=EXPERTS,
            num_experts_per_tok=PICKS,
            n_group=1,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.0,
        )
        config._experts_implementation = "grouped_mm"
        self.gate, self.experts = DeepseekV3TopkRouter(config), DeepseekV3Experts(config)
        self.gate.weight = ours.gate.weight
        self.experts.gate_up_proj = ours.experts.gate_up_proj
        self.experts.down_proj = ours.experts.down_proj

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        _, weights, picked = self.gate(flat)
        return self.experts(flat, picked, weights).view_as(x)


class SwiGlu(nn.Module):
    """Three linear layers: one expert of a loop, or the dense layer of equal active parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(HIDDEN, width, bias=False) for _ in range(2))
        self.down = nn.Linear(width, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Loop(nn.Module):
    """A module for each expert, and a loop over them."""

    def __init__(self, ours: SparseFeedForward) -> None:
        super().__init__()
        self.gate: Gate = ours.gate
        experts = [SwiGlu(WIDTH) for _ in range(EXPERTS)]
        self.experts = nn.ModuleList(experts)
        with torch.no_grad():
            for index, expert in enumerate(experts):
                gate, up = ours.experts.gate_up_proj[index].chunk(2)
                expert.gate.weight.copy_(gate)
                expert.up.weight.copy_(up)
                expert.down.weight.copy_(ours.experts.down_proj[index])


class MaskedLoop(Loop):
    """As commonly published: every expert computes every token, and a mask keeps the picked."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        routing = self.gate(flat)
        total = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            share = (routing.weights * (routing.picked == index)).sum(dim=1, keepdim=True)
            total = total + expert(flat) * share.to(flat.dtype)
        return total.view_as(x)


class GatheredLoop(Loop):
    """As in transformers' eager mixtures: every expert computes the tokens that picked it."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        routing = self.gate(flat)
        total = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            tokens, picks = torch.where(routing.picked == index)
            share = routing.weights[tokens, picks, None].to(flat.dtype)
            total.index_add_(0, tokens, expert(flat[tokens]) * share)
        return total.view_as(x)


@dataclass(frozen=True)
class Case:
    """What is measured in turns."""

    threads: int
    dtype: str
    tokens: int
    mode: str

    @property
    def suffix(self) -> str:
        """How its ratios' names end; one thread, float32 and forward are not named."""
        parts = [
            "_train" if self.mode == "train" else "",
            "_bf16" if self.dtype == "bf16" else "",
            f"_{self.threads}t" if self.threads > 1 else "",
        ]
        return f"{self.tokens}{''.join(parts)}"

    @property
    def flops(self) -> float:
        """Of the picked experts alone."""
        forward = 6 * HIDDEN * WIDTH * PICKS * self.tokens
        return forward * (3 if self.mode == "train" else 1)


def build_models(dtype: torch.dtype) -> dict[str, nn.Module]:
    """All contestants with one set of weights; the dense layer has its own."""
    torch.manual_seed(0)
    ours = Ours()
    found: dict[str, nn.Module] = {
        "ours": ours,
        "transformers": Transformers(ours.layer),
        "dense": SwiGlu(PICKS * WIDTH),
        "gathered_loop": GatheredLoop(ours.layer),
        "masked_loop": MaskedLoop(ours.layer),
    }
    return {name: model.to(dtype) for name, model in found.items()}


def check_agreement(models: dict[str, nn.Module], *, dtype: str) -> None:
    """Stop unless every mixture says the same."""
    x = torch.randn(1, 512, HIDDEN).to(DTYPES[dtype])
    with torch.no_grad():
        expected = models["ours"](x)
        for name, model in models.items():
            worst = (model(x) - expected).abs().max() / expected.abs().max()
            if name != "dense" and not worst <= TOLERANCES[dtype]:
                raise SystemExit(f"{name} differs from ours by {worst:.2g} in {dtype}")


def clock(work: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def prepare(model: nn.Module, case: Case) -> Callable[[], Any]:
    """One forward pass, or one with gradients of weights and input, dropped when made."""
    x = torch.randn(1, case.tokens, HIDDEN).to(DTYPES[case.dtype])
    weights = list(model.parameters())

    def infer() -> None:
        with torch.inference_mode():
            model(x)

    def train() -> None:
        leaf = x.detach().requires_grad_()
        out = model(leaf)
        torch.autograd.grad(out, [leaf, *weights], x)

    return train if case.mode == "train" else infer


def measure(case: Case, models: dict[str, nn.Module], *, turns: int) -> dict[str, list[float]]:
    """Milliseconds of each contestant, turn by turn; the slow loop takes only the first turns."""
    names = [name for name in models if name != "masked_loop" or 1 < case.tokens <= 2048]
    torch.set_num_threads(case.threads)
    works = {name: prepare(models[name], case) for name in names}
    square = torch.randn(GEMM, GEMM).to(DTYPES[case.dtype])
    works["gemm"] = lambda: square @ square
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns):
        for name, work in works.items():
            if name != "masked_loop" or turn < 3:
                times[name].append(clock(work))
    return times


def describe(case: Case, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row for each contestant, and one for the limit that the machine's best product sets."""
    labels = {
        "threads": case.threads,
        "dtype": case.dtype,
        "tokens": case.tokens,
        "mode": case.mode,
    }
    rows = []
    for name, values in times.items():
        if name == "gemm":
            limit = case.flops / (2 * GEMM**3) * min(values)
            rows.append(
                {
                    **labels,
                    "model": "flop_limit",
                    "ms": limit,
                    "best_ms": limit,
                    "turns": len(values),
                }
            )
        else:
            rows.append(
                {
                    **labels,
                    "model": name,
                    "ms": statistics.median(values),
                    "best_ms": min(values),
                    "turns": len(values),
                }
            )
    return rows


def compare(case: Case, times: dict[str, list[float]]) -> dict[str, float]:
    """How many times slower the others are, and ours than the dense layer."""
    found: dict[str, float] = {}
    for name in ("transformers", "gathered_loop", "masked_loop"):
        pairs = zip(times.get(name, []), times["ours"], strict=False)
        values = [theirs / ours for theirs, ours in pairs]
        if values:
            ratio = f"{name}_over_ours_{case.suffix}"
            found |= name_interval(ratio, (statistics.median(values), min(values), max(values)))
            found[f"{ratio}_best"] = min(times[name]) / min(times["ours"])
    values = [ours / dense for ours, dense in zip(times["ours"], times["dense"], strict=True)]
    return found | {f"ours_over_dense_{case.suffix}": statistics.median(values)}


def measure_decoding(*, turns: int) -> list[dict[str, Any]]:
    """Milliseconds of ours for one token, by the number of experts that it does not read."""
    torch.set_num_threads(1)
    models = {number: Ours(number) for number in DECODE_EXPERTS}
    rows = []
    with torch.inference_mode():
        for turn in range(turns):
            for number, model in models.items():
                ms = clock(partial(model, torch.randn(1, 1, HIDDEN)))
                rows.append({"experts": number, "turn": turn, "ms": ms})
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS, help="only so many")
    parser.add_argument("--threads", type=int, nargs="*", default=THREADS, help="only so many")
    options = parser.parse_args()
    machine = environment() | {"compiled_operator": experts_op.is_available()}
    keep_freed_memory([])
    turns = 3 if options.quick else 11
    rows, ratios = [], {}
    for dtype in DTYPES:
        models = build_models(DTYPES[dtype])
        check_agreement(models, dtype=dtype)
        for threads in options.threads[:1] if options.quick else options.threads:
            for tokens in options.tokens:
                for mode in PASSES:
                    case = Case(threads, dtype, tokens, mode)
                    times = measure(case, models, turns=turns)
                    rows += describe(case, times)
                    ratios |= compare(case, times)
    decoding = medians(measure_decoding(turns=10 * turns), labels=("experts",))
    small, large = decoding[0]["ms"], decoding[-1]["ms"]
    ratios[f"decoding_{DECODE_EXPERTS[-1]}_over_{DECODE_EXPERTS[0]}_experts"] = large / small
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=ratios,
        labels=("threads", "dtype", "mode", "tokens", "model"),
    )


if __name__ == "__main__":
    main()
