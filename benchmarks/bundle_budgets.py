"""What `limbeck plan --target` computes of a bundle, beside what is written and what it takes.

One small decoder with random weights in every format that a runtime writes of it: bytes, peak
memory with a cache of the whole context, tokens a second of processor time. GGUF files answer in
llama.cpp's own server, ONNX bundles in a process of ours. Left out: quality.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from full_size import TEXT, answer, measure_bandwidth
from reporting import environment, make_parser, report
from transformers import Qwen3Config, Qwen3ForCausalLM

from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.decoder_sizes import read_sizes
from limbeck.models.tokenizers import load_tokenizer
from limbeck.planning.targets import Target, TargetDevice
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.quantization.qat import convert
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.sizing.estimates import DesignEstimate, Device, TextLengths, estimate
from limbeck.sizing.file_formats import FILE_FORMATS
from limbeck.sizing.shape_counts import count_shapes
from limbeck.sizing.vocabulary_bytes import read_tokenizer

SHAPE = {
    "vocab_size": 32768,
    "hidden_size": 512,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1536,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
SCHEMES: dict[str, QuantizedFormat] = {
    "int8": Int8(kind="int8"),
    "int4": Int4(kind="int4"),
    "int2": Int2(kind="int2"),
    "ternary": Ternary(kind="ternary"),
}
BUNDLES = [name for name, form in FILE_FORMATS.items() if form.runtime != "transformers"]
TARGET = Target(prompt_tokens=128, context_tokens=1024, machine=TargetDevice(bytes_per_second=1e12))
ANSWER_TOKENS = 48
RUN = """
import re, sys, time
from pathlib import Path
from limbeck.runtimes.onnx.runtime import OnnxRuntime

prompt, context, answer = map(int, sys.argv[2:])
model = OnnxRuntime().open_model(Path(sys.argv[1]), num_threads=1)
start = time.process_time()
session = model.open_session(num_slots=1)
session.admit([[5 + index % 40 for index in range(prompt)]])
first = time.process_time() - start
start = time.process_time()
for _ in range(answer):
    session.step([5])
seconds = time.process_time() - start
for _ in range(context - prompt - answer):
    session.step([5])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(1024 * peak, 1000 * first, answer / seconds)
"""


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """The same decoder in floats and in integers."""
    made = {}
    train_tokenizer([TEXT * 4], folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    for name in ("float32", *SCHEMES):
        model = Qwen3ForCausalLM(Qwen3Config.from_dict(SHAPE)).eval()
        if name in SCHEMES:
            model = convert(model, number_format=SCHEMES[name])
        made[name] = folder / name
        save_checkpoint(model, tokenizer=load_tokenizer(folder / "tokenizer"), folder=made[name])
    return made


def compute(checkpoint: Path, name: str) -> DesignEstimate:
    """What the plan says of it, at the end of a short answer."""
    sizes = read_sizes(checkpoint)
    assert sizes is not None
    return estimate(
        sizes,
        FILE_FORMATS[name],
        shapes=count_shapes(sizes),
        vocabulary=read_tokenizer(checkpoint, num_rows=sizes.vocab_size).bytes,
        device=Device(TARGET.machine.bytes_per_second, 0.0, threads=1),
        use=TextLengths(TARGET.context_tokens, TARGET.prompt_tokens),
    )


def measure_onnx(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Of an ONNX bundle."""
    OnnxRuntime().write(checkpoint, folder)
    lengths = (TARGET.prompt_tokens, TARGET.context_tokens - 1, ANSWER_TOKENS)
    command = [sys.executable, "-c", RUN, str(folder), *map(str, lengths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, first, speed = map(float, done.stdout.split())
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return {"mb": num_bytes / 1e6, "peak_mb": peak / 1e6} | {
        "first_token_cpu_ms": first,
        "tokens_per_cpu_second": speed,
    }


def measure_gguf(checkpoint: Path, folder: Path, *, weights: str) -> dict[str, Any]:
    """Of a GGUF file."""
    GgufRuntime().write(checkpoint, folder, weights=weights)
    found = answer(folder / MODEL, target=TARGET, num_threads=1)
    return {
        "mb": (folder / MODEL).stat().st_size / 1e6,
        "peak_mb": found["peak_mb"],
        "first_token_cpu_ms": found["warm_first_token_cpu_ms"],
        "tokens_per_cpu_second": found["warm_tokens_per_cpu_second"],
    }


def main() -> None:
    """Measure, print, append."""
    parser = make_parser("Bundles beside what a plan computes of them")
    parser.add_argument(
        "--formats", nargs="*", choices=BUNDLES, default=BUNDLES, help="some of them; all"
    )
    options = parser.parse_args()
    machine = environment()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        made = write_checkpoints(Path(name))
        bandwidth = measure_bandwidth(num_threads=1)
        for form in (FILE_FORMATS[name] for name in options.formats):
            folder = Path(name) / form.name.replace(" ", "-")
            if form.runtime == "onnx":
                checkpoint = made[form.weights]
                found = measure_onnx(checkpoint, folder)
            else:
                checkpoint = made["ternary" if form.weights.startswith("TQ") else "float32"]
                found = measure_gguf(checkpoint, folder, weights=form.weights)
            said = compute(checkpoint, form.name)
            rows.append(
                {
                    "format": form.name,
                    "mb": found["mb"],
                    "estimated_mb": said.disk_bytes / 1e6,
                    "peak_mb": found["peak_mb"],
                    "estimated_peak_mb": said.memory_bytes / 1e6,
                    "first_token_cpu_ms": found["first_token_cpu_ms"],
                    "tokens_per_cpu_second": found["tokens_per_cpu_second"],
                    "estimated_tokens_per_cpu_second": said.tokens_per_second,
                    "read_mb": (said.read_bytes - said.cache_bytes) / 1e6,
                    "read_gb_per_cpu_second": found["tokens_per_cpu_second"]
                    * (said.read_bytes - said.cache_bytes)
                    / 1e9,
                    "copy_gb_per_second": bandwidth / 1e9,
                }
            )
    ratios = {
        f"{what}_over_estimate {row['format']}": row[what] / row[f"estimated_{what}"]
        for row in rows
        for what in ("mb", "peak_mb", "tokens_per_cpu_second")
    }
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("format",))


if __name__ == "__main__":
    main()
