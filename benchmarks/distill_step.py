"""Tokens a second of distillation's optimizer steps: live, from signals, and TRL's GKD trainer.

Student and teacher are Qwen3 models with fresh weights: 6.8 M and 20.8 M parameters, a third as
Qwen3-0.6B is to Qwen3-1.7B, and the vocabulary of 8,192 gives the student's head 31 % of its
products (26 % in Qwen3-0.6B). Lengths of questions and answers are log-normal, as in instruction
data. All sides see the same records in the same steps, tokenised beforehand, with forward KL at
T = 1 on the answer's tokens, AdamW, clipping, float32 and one thread. `live` and TRL compute one
loss; `signals` computes it over the stored tokens and one bucket for the rest, which is a lower
bound. How far each loss curve is from TRL's is reported. `trl_by_length` is GKD with the records of
each step sorted by length, which it does not do by itself. Every side lives in a process of its
own, so memory is its own, and they take turns. Beside the
clock, each process's own seconds of the processor are told, which others on the machine hardly
change. `--device cuda` takes larger models, Qwen3's whole vocabulary and mixed bfloat16: a student
of 12 layers and a teacher of the shape of Qwen3-0.6B. Left out: reading and tokenising data, and
any quality.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.update(
    {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    # Where a GPU is, Limbeck's loop and TRL's would take it unasked.
    | ({} if any("cuda" in item for item in sys.argv[1:]) else {"CUDA_VISIBLE_DEVICES": ""})
)

import numpy as np
import psutil
import torch
from datasets import Dataset
from distill_step_folders import (
    BATCHING,
    DEVICE,
    make_folders,
    open_artifact,
)
from reporting import environment, make_parser, name_interval, report
from transformers import (
    TrainerCallback,
)
from trl.experimental.gkd import GKDConfig, GKDTrainer

from limbeck.contracts.corpus import Corpus
from limbeck.data.loading.batches import Batches
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.checkpoints import load_model
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit

LR = 1e-4
BETAS = (0.9, 0.999)
SIDES = ("live", "signals", "trl", "trl_by_length")


def open_batches(folder: Path) -> Batches:
    """The micro-batches of every step."""
    tokenizer = load_tokenizer(folder / "student")
    return Batches(Corpus(folder / "corpus"), tokenizer=tokenizer, config=BATCHING)


class Pace:
    """Waits for its turn after a step, and tells its seconds: by the clock, of the processor."""

    def __init__(self, connection: Connection, *, turn_steps: int) -> None:
        self.connection, self.turn_steps = connection, turn_steps
        self.left, self.started = 1, (time.perf_counter(), time.process_time())

    def __call__(self) -> None:
        """Hear that a step is done."""
        self.left -= 1
        if self.left == 0:
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            clock, processor = self.started
            self.connection.send((time.perf_counter() - clock, time.process_time() - processor))
            self.connection.recv()
            self.left = self.turn_steps
            self.started = (time.perf_counter(), time.process_time())


def train_ours(name: str, folder: Path, *, steps: int, pace: Pace) -> list[float]:
    """The loss of every step of Limbeck's loop."""
    objective = SoftTarget(kind="soft_target", temperature=1.0, weight=1.0)
    teacher = open_teacher(
        [open_artifact(folder / ("teacher" if name == "live" else "signals"))],
        corpus=open_artifact(folder / "corpus"),
        batches=open_batches(folder),
        needs=objective.needs(),
    )
    assert teacher is not None
    student = load_model(folder / "student")
    config = TrainingConfig(
        max_steps=steps,
        learning_rate=LR,
        warmup_steps=0,
        min_lr_rate=1.0,
        weight_decay=0.0,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        logging_steps=1,
        save_interval_seconds=1e9,
        precision="bfloat16" if DEVICE == "cuda" else "float32",
    )
    history = fit(
        student,
        batches=open_batches(folder),
        objective=objective.build(ObjectiveContext(student, teacher=teacher)),
        config=config,
        state=folder / name,
        title=name,
        after_step=lambda step: pace(),
    )
    return [point["loss"] for point in history]


def train_trl(name: str, folder: Path, *, steps: int, pace: Pace) -> list[float]:
    """The loss of every step of TRL's trainer, on the same records in the same steps."""

    class Callback(TrainerCallback):
        def on_step_end(self, *positional: Any, **named: Any) -> None:
            pace()

    batches = open_batches(folder)
    rows = []
    for step in range(steps):
        chosen = batches.records.order(step)
        if name == "trl_by_length":
            chosen = chosen[np.argsort(batches.records.lengths(chosen), kind="stable")]
        for index in chosen.tolist():
            ids = batches.records.tokens(index).tolist()
            start = int(batches.records.answer_starts[index])
            mask = [0] * start + [1] * (len(ids) - start)
            rows.append({"input_ids": ids, "completion_mask": mask, "prompt": ""})
    config = GKDConfig(
        output_dir=str(folder / name),
        lmbda=0.0,
        beta=0.0,
        max_steps=steps,
        per_device_train_batch_size=BATCHING.per_device_train_batch_size,
        gradient_accumulation_steps=BATCHING.gradient_accumulation_steps,
        train_sampling_strategy="sequential",
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=1.0,
        activation_checkpointing=False,
        bf16=DEVICE == "cuda",
        use_cpu=DEVICE == "cpu",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=4096,
    )
    trainer = GKDTrainer(
        model=load_model(folder / "student"),
        teacher_model=load_model(folder / "teacher"),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(folder / "student"),
        callbacks=[Callback()],
    )
    trainer.train()
    return [point["loss"] for point in trainer.state.log_history if "loss" in point]


def live_in_turns(
    name: str, folder: Path, *, turn_steps: int, steps: int, connection: Connection
) -> None:
    """One side, in a process of its own."""
    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    base = psutil.Process().memory_info().rss if DEVICE == "cpu" else 0
    train = train_trl if name.startswith("trl") else train_ours
    losses = train(name, folder, steps=steps, pace=Pace(connection, turn_steps=turn_steps))
    connection.send((losses, _peak_bytes() - base))


def _peak_bytes() -> int:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM: peak memory is read on Linux only")


def run(*, num_turns: int, turn_steps: int) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """A row for each turn and side, and every side's losses."""
    steps = 1 + num_turns * turn_steps
    rows: list[dict[str, Any]] = []
    ends: dict[str, tuple[list[float], int]] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        make_folders(folder)
        batches = open_batches(folder)
        context = multiprocessing.get_context("spawn")
        connections: dict[str, Connection] = {}
        for name in SIDES:
            connections[name], far = context.Pipe()
            kwargs = {"turn_steps": turn_steps, "steps": steps, "connection": far}
            context.Process(
                target=live_in_turns, args=(name, folder), kwargs=kwargs, daemon=True
            ).start()
        for name in SIDES:
            connections[name].recv()
        for turn in range(num_turns):
            first = 1 + turn * turn_steps
            chosen = np.concatenate(
                [batches.records.order(step) for step in range(first, first + turn_steps)]
            )
            num_tokens = int(batches.records.lengths(chosen).sum())
            for name in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
                connections[name].send("go")
                seconds, processor_seconds = connections[name].recv()
                rows.append(
                    {
                        "side": name,
                        "turn": turn,
                        "step_seconds": seconds / turn_steps,
                        "tokens_per_second": num_tokens / seconds,
                        "tokens_per_processor_second": num_tokens / processor_seconds,
                    }
                )
        for name in SIDES:
            connections[name].send("end")
            ends[name] = connections[name].recv()
    rows = [row | {"peak_mib": ends[row["side"]][1] / 2**20} for row in rows]
    return rows, {name: losses for name, (losses, _) in ends.items()}


def compare(rows: list[dict[str, Any]], losses: dict[str, list[float]]) -> dict[str, float]:
    """Medians over turns of how many times faster ours is, and how far each side's losses differ.

    The speeds have the least and the largest of the turns beside them.
    """
    measures = {"": "tokens_per_second", "_processor": "tokens_per_processor_second"}
    speeds = {
        (row["side"], row["turn"], suffix): row[name]
        for row in rows
        for suffix, name in measures.items()
    }
    peaks = {row["side"]: row["peak_mib"] for row in rows}
    turns = sorted({turn for _, turn, _ in speeds})
    ratios: dict[str, float] = {}
    for ours in ("live", "signals"):
        for theirs in ("trl", "trl_by_length"):
            for suffix in measures:
                pairs = [
                    speeds[ours, turn, suffix] / speeds[theirs, turn, suffix] for turn in turns
                ]
                spread = (statistics.median(pairs), min(pairs), max(pairs))
                ratios |= name_interval(f"{ours}_over_{theirs}{suffix}", spread)
            ratios[f"{ours}_peak_over_{theirs}"] = peaks[ours] / peaks[theirs]
    for ours in ("live", "signals"):
        ratios[f"{ours}_loss_difference"] = max(
            abs(one - other) for one, other in zip(losses[ours], losses["trl"], strict=True)
        )
    return ratios


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("distillation's optimizer steps against TRL's GKD trainer")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    machine = environment()
    rows, losses = run(num_turns=3 if options.quick else 8, turn_steps=1 if options.quick else 2)
    report(options, environment=machine, rows=rows, ratios=compare(rows, losses), labels=("side",))


if __name__ == "__main__":
    main()
