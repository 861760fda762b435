"""Decode speed at batch 1: one student as float and int8 checkpoint, and as both bundles.

All models take turns, so that ratios compare neighbours in time. Weights are random and answers run
to a fixed length: what is said has no influence on time. Left out: quality, and whole answers.
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

from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import save_checkpoint
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.runtimes import open_runtime
from limbeck.runtimes.base import LoadedModel

SIZES: dict[str, dict[str, int]] = {
    "1M": {
        "vocab_size": 1500,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 384,
    },
    "27M": {
        "vocab_size": 8192,
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1536,
    },
}
PROMPT_TOKENS = 24
THREADS = (1, 2)
MODELS = ("transformers_float32", "transformers_int8", "onnx_float32", "onnx_int8")


def make_folders(size: str, folder: Path) -> dict[str, Path]:
    """The four models of one size, by name."""
    tokenizer = train_tokenizer(
        ["abc"], folder=folder / "tokenizer", config=TokenizerConfig(min_count=1)
    )
    made = {}
    model = Qwen3ForCausalLM(Qwen3Config.from_dict({**SIZES[size], "tie_word_embeddings": True}))
    for number_format in ("float32", "int8"):
        if number_format == "int8":
            model = convert(model, number_format=Int8(kind="int8"))
        checkpoint = made[f"transformers_{number_format}"] = folder / f"{size}-{number_format}"
        bundle = made[f"onnx_{number_format}"] = folder / f"{size}-{number_format}-bundle"
        save_checkpoint(model, tokenizer=tokenizer, folder=checkpoint)
        open_runtime("onnx").write(checkpoint, bundle)
    return made


def open_model(name: str, folder: Path, *, num_threads: int) -> LoadedModel:
    """The model of this name with so many threads."""
    runtime = open_runtime(name.partition("_")[0])
    return runtime.open_model(folder, num_threads=num_threads)


def measure(model: LoadedModel, *, vocab: int, num_tokens: int) -> dict[str, float]:
    """Milliseconds for a prompt, and the median of those for each token after it."""
    prompt = np.random.default_rng(0).integers(0, vocab, PROMPT_TOKENS).tolist()
    started = time.perf_counter()
    session = model.open_session(num_slots=1)
    logits = session.admit([prompt]).logits
    first = time.perf_counter() - started
    times = []
    for _ in range(num_tokens):
        started = time.perf_counter()
        logits = session.step(logits.argmax(axis=-1).tolist())
        times.append(time.perf_counter() - started)
    token = statistics.median(times)
    return {"prompt_ms": first * 1e3, "token_ms": token * 1e3, "tokens_per_second": 1 / token}


def run(*, num_turns: int, num_tokens: int, sizes: list[str]) -> list[dict[str, Any]]:
    """A row for each size, number of threads, turn and model."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            folders = make_folders(size, Path(folder))
            for threads in THREADS:
                models = {
                    name: open_model(name, folders[name], num_threads=threads) for name in MODELS
                }
                for model in models.values():
                    measure(model, vocab=SIZES[size]["vocab_size"], num_tokens=4)
                for turn in range(num_turns):
                    for name, model in models.items():
                        psutil.cpu_percent()
                        numbers = measure(
                            model, vocab=SIZES[size]["vocab_size"], num_tokens=num_tokens
                        )
                        rows.append(
                            {
                                "size": size,
                                "threads": threads,
                                "model": name,
                                "turn": turn,
                                **numbers,
                                "weight_bytes": model.size().weight_bytes,
                                "cpu_percent": psutil.cpu_percent(),
                            }
                        )
    return rows


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns of how many times faster a token comes."""
    times = {
        (row["size"], row["threads"], row["turn"], row["model"]): row["token_ms"] for row in rows
    }
    ratios: dict[str, list[float]] = {}
    for (size, threads, turn, model), value in times.items():
        if model == "onnx_int8":
            for name in MODELS[:-1]:
                label = f"{name}_over_onnx_int8_{size}_{threads}t"
                ratios.setdefault(label, []).append(times[size, threads, turn, name] / value)
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    """Measure, print, write."""
    options = parse_options("decode speed of checkpoints and bundles at batch 1")
    machine = environment()
    quick = {"num_turns": 3, "num_tokens": 32, "sizes": ["1M"]}
    full = {"num_turns": 7, "num_tokens": 64, "sizes": list(SIZES)}
    rows = run(**(quick if options.quick else full))
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=compare(rows),
        labels=("size", "threads", "model"),
    )


if __name__ == "__main__":
    main()
