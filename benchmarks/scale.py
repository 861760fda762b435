"""The same training by one process and by two, divided in every way: loss, memory, steps a second.

All on a CPU, one thread a process, so times say little about GPUs: equal losses and divided memory
are the point. DeepSpeed takes part where it is installed. Left out: speed on GPUs.
"""

import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from reporting import environment, parse_options, report

from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.batch import Batch
from limbeck.models.config import MoeModel
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit

MODEL = MoeModel(
    kind="moe",
    hidden_size=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    num_experts=64,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    initializer_range=0.08,
)
RECORDS, TOKENS, MICRO_BATCHES = 4, 48, 3
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
WAYS: dict[str, tuple[int, str, dict[str, str]]] = {
    "one process": (1, "none", {}),
    "one process, layers recomputed": (1, "layers", {}),
    "2 x DDP": (2, "none", ON_CPU),
    "2 x FSDP2": (2, "none", FSDP2),
    "2 x FSDP2, layers recomputed": (2, "layers", FSDP2),
} | {
    f"2 x ZeRO-{stage}": (
        2,
        "none",
        {
            "DS_ACCELERATOR": "cpu",
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        },
    )
    for stage in (1, 2, 3)
}


def work(steps: int, checkpointing: Any, folder: Path) -> dict[str, Any]:
    """One process's curve, its peak memory above that before training, and its speed."""
    if "ACCELERATE_USE_FSDP" in os.environ:
        # Accelerate offers FSDP2 to GPUs alone; what it then calls works on a CPU as well.
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    torch.set_num_threads(1)
    model = MODEL.build(tokenizer=load_tokenizer(folder / "tokenizer"), seed=0)
    ends: list[float] = []

    def batches(step: int) -> list[Batch]:
        ends.append(time.perf_counter())
        generator = torch.Generator().manual_seed(step)
        shape = (MICRO_BATCHES, RECORDS, TOKENS)
        ids = torch.randint(4, model.config.vocab_size, shape, generator=generator)
        whole = torch.ones(RECORDS, TOKENS, dtype=torch.bool)
        return [Batch(item, item, torch.arange(RECORDS), whole) for item in ids]

    before = psutil.Process().memory_info().rss
    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    history = fit(
        model,
        batches=batches,
        objective=objective,
        config=TrainingConfig(
            max_steps=steps,
            warmup_steps=2,
            save_interval_seconds=1e6,
            logging_steps=1,
            gradient_checkpointing=checkpointing,
        ),
        state=folder / "state",
        title="scale",
    )
    highest = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    seconds = sorted(end - start for start, end in itertools.pairwise(ends[1:]))
    return {
        "losses": [point["loss"] for point in history],
        "parameters": sum(item.numel() for item in model.parameters()),
        "peak_bytes": highest - before,
        "seconds": seconds[len(seconds) // 2],
    }


def run(name: str, steps: int, folder: Path) -> list[dict[str, Any]]:
    """What each process of one way says."""
    count, checkpointing, settings = WAYS[name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(count):
        place = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--worker", str(steps), checkpointing, folder],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | (place | settings if count > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    for process in processes:
        out, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name}: {errors[-2000:]}")
        found.append(json.loads(out.splitlines()[-1]))
    return found


def main() -> None:
    options = parse_options(__doc__ or "")
    machine = environment()
    steps = 4 if options.quick else 10
    rows: list[dict[str, Any]] = []
    expected: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        train_tokenizer(
            [chr(0x4E00 + number) for number in range(1000)],
            folder=folder / "tokenizer",
            config=TokenizerConfig(min_count=1),
        )
        for name in WAYS:
            if "ZeRO" in name and importlib.util.find_spec("deepspeed") is None:
                continue
            found = run(name, steps, folder)
            expected = expected or found[0]["losses"]
            differences = [
                abs(ours - theirs)
                for process in found
                for ours, theirs in zip(process["losses"], expected, strict=True)
            ]
            rows.append(
                {
                    "way": name,
                    "parameters": found[0]["parameters"],
                    "first_loss": found[0]["losses"][0],
                    "last_loss": found[0]["losses"][-1],
                    "largest_difference": max(differences),
                    "peak_mb": max(process["peak_bytes"] for process in found) / 1e6,
                    "steps_per_second": 1 / max(process["seconds"] for process in found),
                }
            )
    ratios = {
        f"peak of {row['way']} over one process": row["peak_mb"] / rows[0]["peak_mb"]
        for row in rows[1:]
    }
    ratios["largest_loss_difference"] = max(row["largest_difference"] for row in rows)
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("way",))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))))
    else:
        main()
