"""A design of full size on disk, with random weights: its bytes, memory and speed, measured.

`limbeck plan --target` says what a design takes; here it is written as a GGUF file, matrix by
matrix, by the pieces that write a checkpoint's bundle, and stock llama.cpp (its server, of the
package xllamacpp) answers from it. Estimate and measurement stand side by side. What is said has no
influence on time. Left out: quality, of which random weights have none.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from jaxtyping import Float
from reporting import environment, make_parser, report
from transformers import Qwen3Config

from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.tokenizers import load_tokenizer
from limbeck.planning import load_target, plan_target
from limbeck.planning.target_plan import DesignRow
from limbeck.planning.targets import Target
from limbeck.runtimes.architecture import describe_architecture
from limbeck.runtimes.gguf.metadata import ModelMetadata
from limbeck.runtimes.gguf.runtime import GgufRuntime
from limbeck.runtimes.gguf.tensors import TensorPlan
from limbeck.runtimes.gguf.vocabulary import describe_vocabulary
from limbeck.runtimes.tensors import Weights
from limbeck.sizing.hardware import BANDWIDTH_UTILISATION

TEXT = "The dose of the drug is given twice a day. "
SPREAD = 0.02
ANSWER_TOKENS = 48
COPIED_BYTES = 1 << 28
READY = "listening at "
SERVE = f"""
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = int(sys.argv[2])
params.n_parallel = 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
params.warmup = False
server = xllamacpp.Server(params)
print("{READY}" + server.listening_address, flush=True)
sys.stdin.read()
"""


class RandomTensors:
    """Weights that no training made, each made when it is taken."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def has(self, name: str) -> bool:
        """A Qwen3 has norms of queries and keys, no biases, and each projection by itself."""
        return name.endswith("_norm.weight")

    def find_format(self, name: str) -> None:
        """They are floats."""

    def take(self, name: str, *, shape: Sequence[int]) -> Float[np.ndarray, "..."]:
        """A norm."""
        del name
        return np.ones(shape, np.float32)

    def take_weights(self, module: str, *, out: int, channels: int) -> Weights:
        """A matrix."""
        del module
        rows = self._rng.standard_normal((out, channels), dtype=np.float32)
        rows *= SPREAD
        return Weights(rows, None, None)


def choose(target: Target, *, file_format: str) -> DesignRow:
    """What the plan proposes in this format: the model as it is, or the design that fits."""
    (model,) = plan_target("target", target).models
    rows = [*(row for row in model.asked if not row.misses), *model.fitting, *model.asked]
    return next(row for row in rows if row.estimate.file_format == file_format)


def write(row: DesignRow, path: Path, *, vocab: int, target: Target, folder: Path) -> None:
    """Write the design, one matrix in memory at a time."""
    config = Qwen3Config.from_dict(
        {
            **row.shape,
            "vocab_size": vocab,
            "max_position_embeddings": target.context_tokens,
            "tie_word_embeddings": True,
        }
    )
    architecture = describe_architecture(
        config, number_format="float32", runtime=GgufRuntime(), place="design"
    )
    kind = row.estimate.file_format.partition(" ")[2]
    plan = TensorPlan(architecture, tensors=RandomTensors(), weights=kind, floats=kind)
    train_tokenizer([TEXT * 4], folder=folder, config=TokenizerConfig(min_count=1))
    vocabulary = describe_vocabulary(
        load_tokenizer(folder), num_rows=vocab, end_ids=(), place="design"
    )
    header = ModelMetadata(architecture, plan=plan, name="random")
    header.write(path, vocabulary=vocabulary, tensors=list(plan.list()))


def answer(path: Path, *, target: Target, num_threads: int) -> dict[str, Any]:
    """Memory and speed of llama.cpp's server with the file."""
    start = time.perf_counter()
    command = [sys.executable, "-c", SERVE, str(path), str(target.context_tokens), str(num_threads)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith(READY):
                raise SystemExit(f"llama.cpp did not start; exit status {process.wait(10)}")
            address = line.removeprefix(READY).strip()
            loaded = time.perf_counter() - start
            rng = np.random.default_rng(1)
            found = {}
            for name in ("cold", "warm"):
                prompt = rng.integers(3, 60, size=target.prompt_tokens).tolist()
                found |= _ask(process.pid, address, prompt, name=name)
            peak = _peak_bytes(process.pid)
        finally:
            process.stdin.close()
            process.wait(60)
    return {"load_seconds": loaded, "peak_mb": peak / 1e6, **found}


def _ask(pid: int, address: str, prompt: list[int], *, name: str) -> dict[str, float]:
    """Speed of one answer: by the clock, and by the processor time that it took.

    The server tells how long prompt and answer took. The first token's processor time is that of an
    answer of one token.
    """
    found: dict[str, float] = {}
    used = []
    for num_tokens in (1, ANSWER_TOKENS):
        before = _cpu_seconds(pid)
        timings = _post(address, prompt, num_tokens=num_tokens)["timings"]
        used.append(_cpu_seconds(pid) - before)
        found[f"{name}_first_token_ms"] = timings["prompt_ms"]
        found[f"{name}_tokens_per_second"] = timings["predicted_per_second"]
        prompt = prompt[::-1]  # so that nothing of it is in the cache
    found[f"{name}_first_token_cpu_ms"] = 1000 * used[0]
    found[f"{name}_tokens_per_cpu_second"] = (ANSWER_TOKENS - 1) / (used[1] - used[0])
    return found


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _post(address: str, prompt: list[int], *, num_tokens: int) -> dict[str, Any]:
    content = {"prompt": prompt, "n_predict": num_tokens, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(
        f"{address}/completion",
        data=json.dumps({**content, "cache_prompt": False}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=1800) as reply:
        return json.load(reply)


def _peak_bytes(pid: int) -> int:
    """The most memory that a process has had at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure_bandwidth(*, num_threads: int) -> float:
    """Bytes that copies read and write a second, the best of five."""
    sources = [np.ones(COPIED_BYTES // 4, np.float32) for _ in range(num_threads)]
    targets = [np.empty_like(item) for item in sources]
    best = 0.0
    for _ in range(5):
        pairs = zip(targets, sources, strict=True)
        threads = [threading.Thread(target=np.copyto, args=pair) for pair in pairs]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, 2 * COPIED_BYTES * num_threads / (time.perf_counter() - start))
    return best


def measure(options: Namespace) -> dict[str, Any]:
    """One row: the design, its estimate, and what was found."""
    target = load_target(options.target, overrides=tuple(options.set))
    row = choose(target, file_format=options.format)
    vocab = target.model.vocab
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = folder / "model.gguf"
        start = time.perf_counter()
        write(row, path, vocab=vocab, target=target, folder=folder / "tokenizer")
        seconds = time.perf_counter() - start
        peak = _peak_bytes(os.getpid())
        bandwidth = measure_bandwidth(num_threads=options.threads)
        found = answer(path, target=target, num_threads=options.threads)
        num_bytes = path.stat().st_size
    estimate = row.estimate
    # The answers end long before the context does.
    share = (target.prompt_tokens + ANSWER_TOKENS) / target.context_tokens
    read = estimate.read_bytes - (1 - share) * estimate.cache_bytes
    return {
        "target": options.target.stem,
        "format": options.format,
        "shape": "x".join(map(str, row.shape.values())),
        "parameters": estimate.parameters,
        "bits_per_weight": round(estimate.bits_per_weight, 3),
        "threads": options.threads,
        "file_mb": num_bytes / 1e6,
        "estimated_file_mb": estimate.disk_bytes / 1e6,
        "estimated_cache_mb": estimate.cache_bytes / 1e6,
        "estimated_peak_mb": estimate.memory_bytes / 1e6,
        "estimated_tokens_per_second": bandwidth * BANDWIDTH_UTILISATION / read,
        "copy_gb_per_second": bandwidth / 1e9,
        "write_seconds": seconds,
        "writer_peak_mb": peak / 1e6,
        **found,
    }


def main() -> None:
    """Measure, print, append."""
    parser = make_parser("A design of full size, written with random weights and answered from")
    parser.add_argument("--target", type=Path, default=Path("recipes/targets/phone.yaml"))
    parser.add_argument("--set", action="append", default=[], help="target.field=value")
    parser.add_argument("--format", default="gguf TQ1_0", help="as `limbeck plan` names it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the file is put meanwhile")
    options = parser.parse_args()
    machine = environment()
    row = measure(options)
    ratios = {
        "file_over_estimate": row["file_mb"] / row["estimated_file_mb"],
        "peak_over_estimate": row["peak_mb"] / row["estimated_peak_mb"],
        "tokens_per_second_over_estimate": row["warm_tokens_per_second"]
        / row["estimated_tokens_per_second"],
        "tokens_per_cpu_second_over_estimate": row["warm_tokens_per_cpu_second"]
        / row["estimated_tokens_per_second"],
    }
    report(options, environment=machine, rows=[row], ratios=ratios, labels=("target", "format"))


if __name__ == "__main__":
    main()
