"""Memory, gradient and tokens a second of the chunked distillation loss, forward and backward.

V = 151,936 as of Qwen, 512 tokens, hidden sizes 256 and 512, float32, one thread: forward KL at
T = 2 times T squared, weight 0.7, and cross-entropy. Sides: Limbeck's `chunked_loss`; Liger's
`chunked_loss` as it comes (`liger`: compiled, chunks of 1,024) and as it is lean without a compiler
(`liger_128`: chunks of 128); logits as a whole by autograd (`naive`). Every side lives in a process
of its own, which has the inputs before its memory counts, and they take turns after one pass
each for warming up, in which Liger compiles. Gradients are compared with plain float64 ones. Left
out: what comes before the states.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

import numpy as np
import psutil
import torch
from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
from reporting import environment, parse_options, report
from torch import Tensor
from torch.nn import functional

from limbeck.models.targets import Projected
from limbeck.objectives.chunked import Mix, chunked_loss
from limbeck.objectives.divergences import ForwardKl

VOCAB, TOKENS, STUDENT, TEACHER = 151_936, 512, 256, 512
TEMPERATURE, WEIGHT = 2.0, 0.7
SIDES = ("ours", "liger", "liger_128", "naive")


class Inputs:
    """The same for every side."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = ((TOKENS, STUDENT), (VOCAB, STUDENT), (TOKENS, TEACHER), (VOCAB, TEACHER))
        drawn = [torch.randn(*shape, generator=generator) for shape in shapes]
        self.states, self.head, self.teacher_states, self.teacher_head = drawn
        self.head /= STUDENT**0.5
        self.teacher_head /= TEACHER**0.5
        self.labels = torch.randint(VOCAB, (TOKENS,), generator=generator)
        self.states.requires_grad_()
        self.head.requires_grad_()


def ours(inputs: Inputs) -> Tensor:
    """The mean loss, by `chunked_loss`."""
    loss = chunked_loss(
        states=inputs.states, head=inputs.head, labels=inputs.labels,
        said=Projected(inputs.teacher_states, inputs.teacher_head),
        mix=Mix(ForwardKl(kind="forward_kl"), TEMPERATURE, WEIGHT, VOCAB),
    )  # fmt: skip
    return loss.sum / loss.count


def make_liger(**settings: Any) -> Callable[[Inputs], Tensor]:
    """The mean loss, by Liger, which leaves the factor of T squared to its weights."""
    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=1 - WEIGHT, weight_soft_loss=WEIGHT * TEMPERATURE**2, beta=0.0,
        temperature=TEMPERATURE, **settings,
    )  # fmt: skip
    return lambda inputs: loss(
        inputs.states, inputs.head, inputs.teacher_states, inputs.teacher_head, inputs.labels
    )


def naive(inputs: Inputs) -> Tensor:
    """The mean loss, by autograd."""
    teacher = (inputs.teacher_states @ inputs.teacher_head.T,)
    return plain(inputs.states, inputs.head, *teacher, inputs.labels) / TOKENS


def plain(states: Tensor, head: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The textbook's sum."""
    logits = states @ head.T
    kl = functional.kl_div(
        (logits / TEMPERATURE).log_softmax(dim=-1), (teacher / TEMPERATURE).log_softmax(dim=-1),
        log_target=True, reduction="sum",
    )  # fmt: skip
    ce = functional.cross_entropy(logits, labels, reduction="sum")
    return WEIGHT * TEMPERATURE**2 * kl + (1 - WEIGHT) * ce


def write_reference(folder: Path) -> None:
    """Gradients of the mean loss in float64, a few tokens at a time."""
    torch.set_num_threads(1)
    inputs = Inputs()
    states, head = (
        item.detach().double().requires_grad_() for item in (inputs.states, inputs.head)
    )
    teacher_head = inputs.teacher_head.double()
    for start in range(0, TOKENS, 64):
        part = slice(start, start + 64)
        teacher = inputs.teacher_states[part].double() @ teacher_head.T
        (plain(states[part], head, teacher, inputs.labels[part]) / TOKENS).backward()
    assert states.grad is not None and head.grad is not None
    np.savez(folder / "reference.npz", states=states.grad.numpy(), head=head.grad.numpy())


def live_in_turns(name: str, folder: Path, *, connection: Connection) -> None:
    """One side, in a process of its own."""
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    inputs = Inputs()
    base = psutil.Process().memory_info().rss
    sides = {"ours": ours, "naive": naive, "liger": make_liger(),
             "liger_128": make_liger(chunk_size=128, compiled=False)}  # fmt: skip
    while connection.recv() == "go":
        inputs.states.grad = inputs.head.grad = None
        started, used = time.perf_counter(), time.process_time()
        sides[name](inputs).backward()
        connection.send((time.perf_counter() - started, time.process_time() - used))
    connection.send(_peak_bytes() - base)
    grads = inputs.states.grad, inputs.head.grad
    with np.load(folder / "reference.npz") as wanted:
        for grad, what in zip(grads, ("states", "head"), strict=True):
            assert grad is not None
            reference = wanted[what]
            error = np.linalg.norm(grad.numpy() - reference) / np.linalg.norm(reference)
            connection.send(float(error))


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM: peak memory is read on Linux only")


def run(*, num_turns: int) -> list[dict[str, Any]]:
    """A row for each turn and side."""
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        reference = context.Process(target=write_reference, args=(folder,))
        reference.start()
        reference.join()
        connections: dict[str, Connection] = {}
        for name in SIDES:
            connections[name], far = context.Pipe()
            context.Process(
                target=live_in_turns, args=(name, folder), kwargs={"connection": far}, daemon=True
            ).start()
            connections[name].send("go")
            connections[name].recv()
        for turn in range(num_turns):
            for name in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
                connections[name].send("go")
                seconds, cpu_seconds = connections[name].recv()
                rows.append({"side": name, "turn": turn, "tokens_per_second": TOKENS / seconds,
                             "cpu_seconds": cpu_seconds})  # fmt: skip
        ends = {}
        for name in SIDES:
            connections[name].send("end")
            peak, *errors = (connections[name].recv() for _ in range(3))
            ends[name] = {"peak_mib": peak / 2**20, "gradient_error": max(errors)}
    return [row | ends[row["side"]] for row in rows]


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
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
    return ratios


def main() -> None:
    """Measure, print, write."""
    options = parse_options("the chunked distillation loss against Liger's and plain autograd")
    machine = environment()
    rows = run(num_turns=3 if options.quick else 8)
    report(options, environment=machine, rows=rows, ratios=compare(rows), labels=("side",))


if __name__ == "__main__":
    main()
