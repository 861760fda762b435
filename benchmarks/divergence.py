"""Memory, gradient and tokens a second of the chunked distillation loss, forward and backward.

V = 151,936 as of Qwen; forward KL at T = 2 times T squared, weight 0.7, and cross-entropy. On a
CPU 512 tokens, hidden sizes 256 and 512, float32, one thread; with `--device cuda` the same, and
4,096 tokens of bfloat16 at hidden sizes 1,024 and 2,048 (Qwen3-0.6B from a Qwen3-30B-A3B). Sides:
Limbeck's `chunked_loss`; Liger's `chunked_loss` as it comes (`liger`: compiled, chunks of 1,024,
here a single one), compiled in chunks of 128 as Limbeck's are small (`liger_compiled_128`), and
without a compiler (`liger_128`); logits as a whole by autograd (`naive`). A peak counts what
compiling took. Every side lives in a process of its own, which has the inputs before its memory
counts, and they take turns after two passes each for warming up, in which both compile. Gradients
are compared with plain float64 ones. Left out: what comes before the states.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1")

import psutil
import torch
from liger_kernel.chunked_loss import (  # pyright: ignore[reportMissingImports]  # the extra `benchmarks`
    LigerFusedLinearJSDLoss,
)
from reporting import environment, make_parser, report
from torch import Tensor
from torch.nn import functional

from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.losses.config import ForwardKl
from limbeck.distillation.targets import HiddenAndHead

VOCAB = 151_936
TEMPERATURE, WEIGHT = 2.0, 0.7
SIDES = ("ours", "liger", "liger_compiled_128", "liger_128", "naive")
WARM_UP = 2
"""Passes before the first that counts."""


@dataclass(frozen=True)
class Case:
    """What all sides are given."""

    device: str
    dtype: str
    tokens: int
    student: int
    teacher: int


SMALL = {"dtype": "float32", "tokens": 512, "student": 256, "teacher": 512}
LARGE = {"dtype": "bfloat16", "tokens": 4096, "student": 1024, "teacher": 2048}
CASES = {
    "cpu": {"": Case(device="cpu", **SMALL)},
    "cuda": {"": Case(device="cuda", **SMALL), "large_": Case(device="cuda", **LARGE)},
}
"""Of each device, by what stands before the names of their ratios."""


class Inputs:
    """The same for every side."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        tokens, student, teacher = case.tokens, case.student, case.teacher
        shapes = ((tokens, student), (VOCAB, student), (tokens, teacher), (VOCAB, teacher))
        self.states, self.head, self.teacher_states, self.teacher_head = (
            (torch.randn(*shape, generator=generator) / scale**0.5).to(
                case.device, getattr(torch, case.dtype)
            )
            for shape, scale in zip(shapes, (1, student, 1, teacher), strict=True)
        )
        self.labels = torch.randint(VOCAB, (tokens,), generator=generator).to(case.device)
        self.states.requires_grad_()
        self.head.requires_grad_()


def ours(inputs: Inputs) -> Tensor:
    """The mean loss, by `chunked_loss`."""
    loss = chunked_loss(
        states=inputs.states,
        head=inputs.head,
        labels=inputs.labels,
        output=HiddenAndHead(inputs.teacher_states, inputs.teacher_head),
        mix=Mix(ForwardKl(kind="forward_kl"), TEMPERATURE, WEIGHT, VOCAB),
    )
    return loss.sum / loss.count


def make_liger(**settings: Any) -> Callable[[Inputs], Tensor]:
    """The mean loss, by Liger, which leaves the factor of T squared to its weights."""
    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=1 - WEIGHT,
        weight_soft_loss=WEIGHT * TEMPERATURE**2,
        beta=0.0,
        temperature=TEMPERATURE,
        **settings,
    )
    return lambda inputs: loss(
        inputs.states, inputs.head, inputs.teacher_states, inputs.teacher_head, inputs.labels
    )


def naive(inputs: Inputs) -> Tensor:
    """The mean loss, by autograd."""
    logits = (inputs.states @ inputs.head.T).float()
    teacher = (inputs.teacher_states @ inputs.teacher_head.T).float()
    kl = functional.kl_div(
        (logits / TEMPERATURE).log_softmax(dim=-1),
        (teacher / TEMPERATURE).log_softmax(dim=-1),
        log_target=True,
        reduction="sum",
    )
    ce = functional.cross_entropy(logits, inputs.labels, reduction="sum")
    return (WEIGHT * TEMPERATURE**2 * kl + (1 - WEIGHT) * ce) / len(logits)


@torch.no_grad()
def write_reference(case: Case, path: Path) -> None:
    """Gradients of the mean loss in float64, a few tokens at a time."""
    torch.set_num_threads(1)
    inputs, num = Inputs(case), 64
    states, head, teacher_head = (
        item.detach().double() for item in (inputs.states, inputs.head, inputs.teacher_head)
    )
    grads = {"states": torch.zeros_like(states), "head": torch.zeros_like(head)}
    for start in range(0, case.tokens, num):
        part = slice(start, start + num)
        logits = states[part] @ head.T
        teacher = inputs.teacher_states[part].double() @ teacher_head.T
        gaps = (logits / TEMPERATURE).softmax(dim=-1) - (teacher / TEMPERATURE).softmax(dim=-1)
        errors = logits.softmax(dim=-1)
        errors[torch.arange(num), inputs.labels[part]] -= 1
        gradient = (WEIGHT * TEMPERATURE * gaps + (1 - WEIGHT) * errors) / case.tokens
        grads["states"][part] = gradient @ head
        grads["head"].addmm_(gradient.T, states[part])
    torch.save({name: grad.cpu() for name, grad in grads.items()}, path)


def live_in_turns(name: str, case: Case, path: Path, *, connection: Connection) -> None:
    """One side, in a process of its own."""
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    inputs = Inputs(case)
    base = _held_bytes(case)
    sides = {
        "ours": ours,
        "naive": naive,
        "liger": make_liger(),
        "liger_compiled_128": make_liger(chunk_size=128),
        "liger_128": make_liger(chunk_size=128, compiled=False),
    }
    while connection.recv() == "go":
        inputs.states.grad = inputs.head.grad = None
        started, used = time.perf_counter(), time.process_time()
        sides[name](inputs).backward()
        if case.device == "cuda":
            torch.cuda.synchronize()
        connection.send((time.perf_counter() - started, time.process_time() - used))
    connection.send(_peak_bytes(case) - base)
    wanted = torch.load(path)
    for grad, what in ((inputs.states.grad, "states"), (inputs.head.grad, "head")):
        assert grad is not None
        error = (grad.cpu().double() - wanted[what]).norm() / wanted[what].norm()
        connection.send(float(error))


def _held_bytes(case: Case) -> int:
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return psutil.Process().memory_info().rss


def _peak_bytes(case: Case) -> int:
    if case.device == "cuda":
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM: peak memory is read on Linux only")


def run(case: Case, *, num_turns: int) -> list[dict[str, Any]]:
    """A row for each turn and side."""
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as text:
        path = Path(text) / "reference.pt"
        reference = context.Process(target=write_reference, args=(case, path))
        reference.start()
        reference.join()
        connections: dict[str, Connection] = {}
        for name in SIDES:
            connections[name], far = context.Pipe()
            context.Process(
                target=live_in_turns,
                args=(name, case, path),
                kwargs={"connection": far},
                daemon=True,
            ).start()
        for _ in range(WARM_UP):
            for name in SIDES:
                connections[name].send("go")
            for name in SIDES:
                connections[name].recv()
        for turn in range(num_turns):
            for name in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
                connections[name].send("go")
                seconds, cpu_seconds = connections[name].recv()
                rows.append(
                    {
                        "side": name,
                        "device": case.device,
                        "dtype": case.dtype,
                        "tokens": case.tokens,
                        "turn": turn,
                        "tokens_per_second": case.tokens / seconds,
                        "cpu_seconds": cpu_seconds,
                    }
                )
        ends = {}
        for name in SIDES:
            connections[name].send("end")
            peak, *errors = (connections[name].recv() for _ in range(3))
            ends[name] = {"peak_mib": peak / 2**20, "gradient_error": max(errors)}
    return [row | ends[row["side"]] for row in rows]


def compare(rows: list[dict[str, Any]], *, before: str) -> dict[str, float]:
    """Ours in figures, and medians over turns of how many times faster it is."""
    by_side = {(row["side"], row["turn"]): row for row in rows}
    turns = sorted({turn for _, turn in by_side})
    last = {name: by_side[name, turns[-1]] for name in SIDES}
    ratios = {name: last["ours"][name] for name in ("peak_mib", "gradient_error")}
    for other in SIDES[1:]:
        ratios[f"ours_over_{other}_tokens"] = statistics.median(
            by_side["ours", turn]["tokens_per_second"] / by_side[other, turn]["tokens_per_second"]
            for turn in turns
        )
        ratios[f"{other}_over_ours_cpu_seconds"] = statistics.median(
            by_side[other, turn]["cpu_seconds"] / by_side["ours", turn]["cpu_seconds"]
            for turn in turns
        )
        ratios[f"ours_over_{other}_peak"] = ratios["peak_mib"] / last[other]["peak_mib"]
        ratios[f"{other}_gradient_error"] = last[other]["gradient_error"]
    return {before + name: value for name, value in ratios.items()}


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("the chunked distillation loss against Liger's and plain autograd")
    parser.add_argument("--device", choices=CASES, default="cpu")
    options = parser.parse_args()
    machine = environment()
    rows, ratios = [], {}
    for before, case in CASES[options.device].items():
        found = run(case, num_turns=3 if options.quick else 8)
        rows += found
        ratios |= compare(found, before=before)
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=ratios,
        labels=("side", "device", "dtype", "tokens"),
    )


if __name__ == "__main__":
    main()
