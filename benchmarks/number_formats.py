"""Number formats: what each costs a model, how far bundle and checkpoint part, bytes and speed.

A float checkpoint is converted without training; predictions are compared on questions with their
answers, as the model's chat renders them. Bundles take turns while they decode, so that ratios
compare neighbours in time. Schemes that are `smoothed` even channels out first, those with `gptq`
choose codes, by other texts of the file. Left out: training for the format, which takes back much
of the cost.
"""

import gc
import itertools
import json
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import environment, make_parser, report
from transformers import PreTrainedModel

from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.parity import LogitDifference, compare_logits, log_softmax
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.gptq.config import Gptq
from limbeck.models.gptq.rounding import round_by_gptq
from limbeck.models.smoothing.config import Smoothing
from limbeck.models.smoothing.smooth import smooth
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import BLOCK_SIZES, Int8
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.quantization.layers import unrounded_activations
from limbeck.quantization.qat import convert
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.transformers import TransformersRuntime

LONGEST_TOKENS = 96
PROMPT_TOKENS = 24
NUM_CALIBRATION_ROWS = 16
NUM_GPTQ_ROWS = 64
CALIBRATION_BATCH = 8
SCHEMES: dict[str, QuantizedFormat] = {
    **{f"int8 {size}": Int8(kind="int8", block_size=size) for size in BLOCK_SIZES},
    "int4 32": Int4(kind="int4"),
    "int4 64": Int4(kind="int4", block_size=64),
    "int4 128": Int4(kind="int4", block_size=128),
    "int4 32, embeddings too": Int4(kind="int4", embeddings="int4"),
    **{
        f"int2 {size}": Int2(kind="int2", block_size=size, embeddings="int8")
        for size in (32, 64, 128)
    },
    "ternary 256": Ternary(kind="ternary", embeddings="int8"),
    "ternary 256, least squares": Ternary(kind="ternary", scale="least_squares", embeddings="int8"),
    "ternary 32, least squares": Ternary(
        kind="ternary", scale="least_squares", block_size=32, embeddings="int8"
    ),
}
"""By name: the format, and the numbers that share a scale."""
SMOOTHED = ", smoothed"
GPTQ = ", gptq"
SCHEMES |= {
    f"{name}{suffix}": SCHEMES[name]
    for name, suffixes in {
        "int8 32": (SMOOTHED,),
        "int4 32": (SMOOTHED, GPTQ, SMOOTHED + GPTQ),
        "int2 64": (GPTQ,),
        "ternary 256, least squares": (SMOOTHED, GPTQ),
    }.items()
    for suffix in suffixes
}
Logits = Sequence[np.ndarray]


def read_rows(path: Path, *, bundle: Path, num: int, first: int = 0) -> list[list[int]]:
    """The first tokens of a file's questions and answers, spread over the file from a line on."""
    chat = read_chat(bundle)
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[first :: max(1, len(lines) // num)][:num]]
    return [
        [*chat.render(as_prompt(item["question"])), *chat.encode(item["answer"])][:LONGEST_TOKENS]
        for item in records
    ]


def read_between(path: Path, *, bundle: Path, num: int, apart: int = 4) -> list[list[int]]:
    """As many rows that lie as far as can be from those that are `num / apart` over the file."""
    stride = len(path.read_text(encoding="utf-8").splitlines()) // (num // apart)
    return [
        row
        for part in range(1, apart + 1)
        for row in read_rows(
            path, bundle=bundle, num=num // apart, first=part * stride // (apart + 1)
        )
    ]


def make_batches(rows: Sequence[Sequence[int]]) -> list[Batch]:
    """Rows of tokens in batches of like length."""
    by_length = sorted(rows, key=len)
    return [
        pad_rows(
            list(map(np.array, part)),
            starts=[0] * len(part),
            pad=0,
            record_ids=list(range(len(part))),
        )
        for first in range(0, len(by_length), CALIBRATION_BATCH)
        for part in [by_length[first : first + CALIBRATION_BATCH]]
    ]


def prepare(
    model: PreTrainedModel,
    name: str,
    *,
    number_format: QuantizedFormat,
    rows: Sequence[Sequence[int]],
    many_rows: Sequence[Sequence[int]],
) -> None:
    """Smooth a model in place and choose its codes, as the stage does, where a name has it."""
    if SMOOTHED in name:
        smooth(
            model,
            batches=[make_batches([row])[0] for row in rows],
            strength=Smoothing().migration_strength,
            input_ids=torch.tensor([rows[0]]),
        )
    if GPTQ in name:
        round_by_gptq(
            model,
            batches=make_batches(many_rows),
            number_format=number_format,
            damping_ratio=Gptq().damping_ratio,
        )


def make_bundles(
    checkpoint: Path, folder: Path, *, schemes: Sequence[str], texts: Path
) -> dict[str, Path]:
    """Bundles in float32 and in every scheme, beside the checkpoints they were written from."""
    tokenizer = load_tokenizer(checkpoint)
    made = {"float32": folder / "float32"}
    OnnxRuntime().write(checkpoint, made["float32"])
    rows = read_rows(texts, bundle=made["float32"], num=NUM_CALIBRATION_ROWS, first=1)
    many_rows = read_between(texts, bundle=made["float32"], num=NUM_GPTQ_ROWS)
    for name in schemes:
        model = load_model(checkpoint)
        prepare(model, name, number_format=SCHEMES[name], rows=rows, many_rows=many_rows)
        model = convert(model, number_format=SCHEMES[name])
        save_checkpoint(model, tokenizer=tokenizer, folder=folder / f"{name}-checkpoint")
        made[name] = folder / name
        OnnxRuntime().write(folder / f"{name}-checkpoint", made[name])
    return made


def predict(model: LoadedModel, rows: list[list[int]]) -> Logits:
    """Logits at every position, one row at a time."""
    return [logits for row in rows for logits in model.compute_logits([row], start=0)]


def compare(original: Logits, copy: Logits) -> LogitDifference:
    """How far a copy's predictions lie from the original's."""
    return compare_logits(zip(original, copy, strict=True))


def measure_quality(
    name: str, *, folder: Path, rows: list[list[int]], floats: Logits
) -> dict[str, Any]:
    """What one scheme costs, and how far its bundle and checkpoint part."""
    reference = TransformersRuntime().open_model(folder / f"{name}-checkpoint", num_threads=1)
    stored = predict(reference, rows)
    with unrounded_activations(reference.model):
        unrounded = predict(reference, rows)
    bundle = OnnxRuntime().open_model(folder / name, num_threads=1)
    answered = predict(bundle, rows)
    cost, apart = compare(floats, stored), compare(stored, answered)
    return {
        "scheme": name,
        "perplexity_ratio": perplexity_ratio(rows, floats=floats, copy=answered),
        "num_positions": cost.num_positions,
        "kl_to_float": cost.mean_kl,
        "argmax_agreement_ratio": cost.argmax_agreement_ratio,
        "weights_only_kl_to_float": compare(floats, unrounded).mean_kl,
        "bundle_kl_to_float": compare(floats, answered).mean_kl,
        "bundle_kl_to_checkpoint": apart.mean_kl,
        "bundle_argmax_agreement_ratio": apart.argmax_agreement_ratio,
        "rounding_kl": compare(unrounded, stored).mean_kl,
        "copy_rounding_kl": compare(unrounded, answered).mean_kl,
        "bundle_mb": bundle.size().weight_bytes / 1e6,
    }


def perplexity_ratio(rows: list[list[int]], *, floats: Logits, copy: Logits) -> float:
    """Perplexity of the bundle on the rows, by that of the float model."""
    total = count = 0.0
    for row, original, answered in zip(rows, floats, copy, strict=True):
        places, following = np.arange(len(row) - 1), np.array(row[1:])
        for logits, sign in ((original, 1), (answered, -1)):
            total += sign * float(log_softmax(logits[:-1])[places, following].sum())
        count += len(following)
    return float(np.exp(total / count))


def measure_speed(model: LoadedModel, *, num_tokens: int) -> dict[str, float]:
    """Milliseconds for a prompt, and the median of those for each token after it."""
    prompt = list(range(1, PROMPT_TOKENS + 1))
    started = time.perf_counter()
    session = model.open_session(num_slots=1)
    logits = session.admit([prompt]).logits
    first = time.perf_counter() - started
    times = []
    for _ in range(num_tokens):
        started = time.perf_counter()
        logits = session.step(logits.argmax(axis=-1).tolist())
        times.append(time.perf_counter() - started)
    return {"prompt_ms": first * 1e3, "token_ms": statistics.median(times) * 1e3}


def take_turns(bundles: dict[str, Path], *, num_turns: int, num_tokens: int) -> list[dict]:
    """A row for each turn and bundle."""
    models = {name: OnnxRuntime().open_model(path, num_threads=1) for name, path in bundles.items()}
    for model in models.values():
        measure_speed(model, num_tokens=2)
    return [
        {"scheme": name, "turn": turn, **measure_speed(model, num_tokens=num_tokens)}
        for turn, (name, model) in itertools.product(range(num_turns), models.items())
    ]


def run(options: Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row of quality for each scheme; a row of speed for each turn and bundle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = make_bundles(
            options.checkpoint, folder, schemes=options.schemes, texts=options.texts
        )
        texts = read_rows(options.texts, bundle=bundles["float32"], num=4 if options.quick else 16)
        floats = predict(TransformersRuntime().open_model(options.checkpoint, num_threads=1), texts)
        quality = []
        for name in options.schemes:
            quality.append(measure_quality(name, folder=folder, rows=texts, floats=floats))
            gc.collect()
        del floats
        num_turns = 3 if options.quick else 9
        return quality, take_turns(bundles, num_turns=num_turns, num_tokens=32)


def find_ratios(speed: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns of how many times as long as in the first scheme all others take."""
    ratios = {}
    for what in ("token_ms", "prompt_ms"):
        times = {(row["turn"], row["scheme"]): row[what] for row in speed}
        names = list(dict.fromkeys(name for _, name in times))
        first = next((name for name in names if name != "float32"), names[0])
        for other in (name for name in names if name != first):
            pairs = [
                value / times[turn, first] for (turn, name), value in times.items() if name == other
            ]
            ratios[f"{what}: {other} over {first}"] = statistics.median(pairs)
    return dict(sorted(ratios.items()))


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("Number formats: cost, parity, bytes, speed")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a float checkpoint")
    parser.add_argument(
        "--texts", type=Path, required=True, help="JSONL with the fields question and answer"
    )
    parser.add_argument(
        "--schemes", nargs="*", choices=SCHEMES, default=[*SCHEMES], help="some of them; all"
    )
    options = parser.parse_args()
    machine = environment()
    quality, speed = run(options)
    report(
        options,
        environment=machine,
        rows=quality,
        tables={"speed": speed},
        ratios=find_ratios(speed),
        labels=("scheme",),
    )


if __name__ == "__main__":
    main()
