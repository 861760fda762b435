"""Where two threads begin to answer faster than one: decoding steps of growing work.

The work of a step is parameters active per token times tokens in the step. Both thread counts take
turns within one run. Weights are random and a step's tokens have no influence on its time.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import environment, parse_options, report
from transformers import Qwen3Config, Qwen3ForCausalLM

from limbeck.data.corpus.train_tokenizer import TokenizerConfig, train_tokenizer
from limbeck.models.checkpoints import save_checkpoint
from limbeck.runtimes import open_runtime
from limbeck.runtimes.base import LoadedModel

WIDTHS = (128, 256, 384, 512)
VOCAB = 4096
ROWS = (1, 8, 64)
PROMPT_TOKENS = 16
THREADS = (1, 2)
RUNTIMES = ("transformers", "onnx")


def make_folders(width: int, folder: Path) -> dict[str, Path]:
    """A checkpoint and a bundle of one width, by runtime."""
    tokenizer = train_tokenizer(
        ["abc"], folder=folder / "tokenizer", config=TokenizerConfig(min_count=1)
    )
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=width,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        head_dim=64,
        intermediate_size=3 * width,
        tie_word_embeddings=True,
    )
    made = {name: folder / f"{width}-{name}" for name in RUNTIMES}
    save_checkpoint(Qwen3ForCausalLM(config), tokenizer=tokenizer, folder=made["transformers"])
    open_runtime("onnx").write(made["transformers"], made["onnx"])
    return made


def measure(model: LoadedModel, *, num_rows: int, num_steps: int) -> float:
    """The median milliseconds of a step after the prompts."""
    prompts = np.random.default_rng(0).integers(0, VOCAB, (num_rows, PROMPT_TOKENS)).tolist()
    session = model.open_session(num_slots=num_rows)
    logits = session.admit(prompts).logits
    times = []
    for _ in range(num_steps):
        tokens = logits.argmax(axis=-1).tolist()
        started = time.perf_counter()
        logits = session.step(tokens)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def run(*, num_turns: int, num_steps: int, widths: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each width, runtime, number of rows, turn and number of threads."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width in widths:
            for runtime, path in make_folders(width, Path(folder)).items():
                models = {
                    count: open_runtime(runtime).open_model(path, num_threads=count)
                    for count in THREADS
                }
                for num_rows in ROWS:
                    for turn in range(-1, num_turns):
                        for count, model in models.items():
                            psutil.cpu_percent()
                            token_ms = measure(model, num_rows=num_rows, num_steps=num_steps)
                            if turn < 0:
                                continue
                            rows.append(
                                {
                                    "runtime": runtime,
                                    "active_parameters": model.size().active_parameters,
                                    "rows": num_rows,
                                    "threads": count,
                                    "turn": turn,
                                    "step_ms": token_ms,
                                    "cpu_percent": psutil.cpu_percent(),
                                    "load_average": psutil.getloadavg()[0],
                                }
                            )
    return rows


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns of the time with one thread over that with two, by work."""
    keys = ("runtime", "active_parameters", "rows")
    times: dict[tuple[Any, ...], float] = {
        (*(row[key] for key in keys), row["turn"], row["threads"]): row["step_ms"] for row in rows
    }
    ratios: dict[str, list[float]] = {}
    for (runtime, active, num_rows, turn, count), value in times.items():
        if count == 2:
            label = f"{runtime}_{active / 1e6:.1f}M_x{num_rows}"
            one = times[runtime, active, num_rows, turn, 1]
            ratios.setdefault(label, []).append(one / value)
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    """Measure, print, write."""
    options = parse_options("time of a decoding step with one thread and with two, by its work")
    machine = environment()
    quick = {"num_turns": 2, "num_steps": 6, "widths": WIDTHS[:2]}
    full = {"num_turns": 5, "num_steps": 10, "widths": WIDTHS}
    rows = run(**(quick if options.quick else full))
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=compare(rows),
        labels=("runtime", "active_parameters", "rows", "threads"),
    )


if __name__ == "__main__":
    main()
