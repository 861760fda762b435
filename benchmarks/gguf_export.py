"""A published GGUF file unpacked to a checkpoint and written again: bytes, tokens, predictions.

Every type that `export` writes is compared with the float checkpoint in PyTorch and with the
published file in llama.cpp, on passages of this repository's pages. Tokens are compared on
random texts. Bundles take turns while they decode, so that times compare neighbours.
"""

import gc
import itertools
import statistics
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from number_formats import GPTQ, SMOOTHED, Logits, compare, measure_speed, predict, prepare
from reporting import environment, make_parser, report
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from limbeck.contracts.answerer import Size
from limbeck.contracts.parity import log_softmax
from limbeck.models.checkpoints import load_model, open_config, save_checkpoint
from limbeck.models.gguf.header import read_header
from limbeck.models.mixed_precision.choice import choose_layers, count_bytes
from limbeck.models.mixed_precision.config import MixedPrecision
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.runtimes.bundle import read_bundle
from limbeck.runtimes.gguf.carry import compare_texts, make_texts
from limbeck.runtimes.gguf.model import GgufFile, GgufModel
from limbeck.runtimes.gguf.runtime import GgufRuntime
from limbeck.runtimes.gguf.vocabulary import describe_vocabulary
from limbeck.runtimes.transformers import TransformersRuntime

PAGES = ("concepts", "teacher", "planning", "limits", "evaluation", "training", "gemma", "scale")
LONGEST_TOKENS = 96
TERNARY = {"kind": "ternary", "scale": "least_squares"}
WEIGHTS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_1", "Q4_0")
CARRIED = {
    "Q8_0 of int8": Int8(kind="int8"),
    "Q4_0 of int4": Int4(kind="int4"),
    "Q4_0 and Q8_0": Int4(kind="int4"),
    "Q4_0 and TQ2_0": Int4.model_validate({"kind": "int4", "layers": {"*.down_proj": TERNARY}}),
}
"""Checkpoints of integers, converted without training."""
MORE_BYTES = {"Q4_0 and Q8_0": 1.09}
"""Those of which layers that rounding costs most get int8, and how many more bytes in all."""
SUFFIXES = {
    "Q8_0 of int8": ("", SMOOTHED),
    "Q4_0 of int4": ("", SMOOTHED, GPTQ, SMOOTHED + GPTQ),
    "Q4_0 and Q8_0": (GPTQ,),
    "Q4_0 and TQ2_0": (GPTQ,),
}
"""What is done to each before: nothing, channels evened out, codes chosen."""
THEIRS = "Q4_0 and TQ2_0 by the gguf package, as F32"
NUM_GPTQ_PASSAGES = 64
NUM_PROBE_TOKENS = 64
"""Of each of two passages on which layers are rounded alone, as the stage does."""


def read_passages(checkpoint: Path, *, paths: Sequence[Path], first: int = 0) -> list[list[int]]:
    """Tokens of pages from one on; the first ones are those of their beginnings."""
    tokenizer = load_tokenizer(checkpoint)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [tokenizer.encode(text)[first : first + LONGEST_TOKENS] for text in texts]


def read_others(checkpoint: Path, *, pages: Sequence[Path]) -> list[list[int]]:
    """Passages of pages that are not measured, one after another."""
    known = {page.name for page in pages}
    paths = [path for path in sorted(Path("docs").glob("*.md")) if path.name not in known]
    rows = []
    for first in range(0, NUM_GPTQ_PASSAGES * LONGEST_TOKENS, LONGEST_TOKENS):
        rows += [row for row in read_passages(checkpoint, paths=paths, first=first) if row]
        if len(rows) >= NUM_GPTQ_PASSAGES:
            break
    return rows[:NUM_GPTQ_PASSAGES]


def perplexity(logits: Logits, rows: Sequence[Sequence[int]]) -> float:
    """Of the passages, from the second token on."""
    losses = [
        -log_softmax(row_logits[:-1])[np.arange(len(row) - 1), row[1:]]
        for row_logits, row in zip(logits, rows, strict=True)
    ]
    return float(np.exp(np.concatenate(losses).mean()))


def open_file(path: Path, *, max_tokens: int) -> GgufModel:
    """A published file, as logits."""
    size = Size(parameters=1, active_parameters=1, weight_bytes=path.stat().st_size)
    return GgufModel(GgufFile(path), size=size, max_tokens=max_tokens, num_threads=1)


def write_bundles(
    options: Namespace,
    folder: Path,
    *,
    calibration: Sequence[Sequence[int]],
    others: Sequence[Sequence[int]],
) -> dict[str, Path]:
    """A bundle for each type, and those of integers; some are prepared by other passages."""
    made, checkpoint = {}, options.checkpoint
    for weights in options.weights or WEIGHTS:
        made[weights] = folder / weights
        GgufRuntime().write(checkpoint, made[weights], weights=weights)
    carried = {} if options.weights else CARRIED
    if carried:
        made[THEIRS] = write_rounded_by_gguf(checkpoint, folder / THEIRS)
    for kind, number_format in carried.items():
        for suffix in SUFFIXES[kind]:
            name = f"{kind}{suffix}"
            stored, model = folder / f"{name}-checkpoint", load_model(checkpoint)
            if kind in MORE_BYTES:
                number_format = mix(
                    model, base=number_format, more=MORE_BYTES[kind], rows=calibration
                )
            prepare(model, name, number_format=number_format, rows=calibration, many_rows=others)
            integers = convert(model, number_format=number_format)
            save_checkpoint(integers, tokenizer=load_tokenizer(checkpoint), folder=stored)
            made[name] = folder / name
            GgufRuntime().write(stored, made[name])
    return made


def write_rounded_by_gguf(checkpoint: Path, folder: Path) -> Path:
    """A bundle of floats that the `gguf` package rounded to the types of "Q4_0 and TQ2_0"."""
    model = load_model(checkpoint)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            is_table = "embed_tokens" in name or "lm_head" in name
            kind = Kind.Q8_0 if is_table else Kind.TQ2_0 if "down_proj" in name else Kind.Q4_0
            rounded = gguf.dequantize(gguf.quantize(parameter.detach().numpy(), kind), kind)
            parameter.data.copy_(torch.from_numpy(rounded))
    floats = folder.with_name(f"{folder.name}-checkpoint")
    save_checkpoint(model, tokenizer=load_tokenizer(checkpoint), folder=floats)
    GgufRuntime().write(floats, folder, weights="F32")
    return folder


def mix(
    model: PreTrainedModel,
    *,
    base: QuantizedFormat,
    more: float,
    rows: Sequence[Sequence[int]],
) -> QuantizedFormat:
    """The format with int8 for some layers, in so many times the bytes."""
    max_bytes = round(more * count_bytes(model, number_format=base))
    long = [row[:NUM_PROBE_TOKENS] for row in rows if len(row) >= NUM_PROBE_TOKENS]
    return choose_layers(
        model,
        number_format=base,
        config=MixedPrecision(max_bytes=max_bytes, formats=[Int8(kind="int8")]),
        input_ids=torch.tensor(long[:2]),
    )


def count_equal_tensors(written: Path, published: Path) -> dict[str, int]:
    """Tensors of one file that another holds bit for bit."""
    found = []
    for path in (written, published):
        data = np.memmap(path, np.uint8, mode="r")
        tensors = read_header(path).tensors
        found.append({item.name: data[item.offset :][: item.num_bytes] for item in tensors})
    ours, theirs = found
    equal = [name for name in ours if np.array_equal(ours[name], theirs.get(name))]
    types = [
        {item.name: item.type for item in read_header(path).tensors}
        for path in (written, published)
    ]
    same = [name for name, kind in types[0].items() if types[1].get(name) == kind]
    return {
        "num_tensors": len(ours),
        "num_equal_types": len(same),
        "num_equal_tensors": len(equal),
    }


def measure(options: Namespace, *, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """A row for each bundle, after those of the checkpoint and the published file."""
    max_tokens = open_config(options.checkpoint).max_position_embeddings
    pages = options.text or [Path(f"docs/{page}.md") for page in PAGES]
    rows = read_passages(options.checkpoint, paths=pages[: 3 if options.quick else len(pages)])
    floats = predict(TransformersRuntime().open_model(options.checkpoint, num_threads=1), rows)
    original = open_file(options.file, max_tokens=max_tokens)
    published = predict(original, rows)
    equal_tokens = compare_tokens(options, original.file, num=100 if options.quick else 5000)
    del original
    found: list[dict[str, Any]] = [
        {
            "weights": "checkpoint",
            "num_positions": sum(map(len, rows)),
            "perplexity": perplexity(floats, rows),
            "kl_to_published": compare(published, floats).mean_kl,
        },
        {
            "weights": "published",
            "mb": options.file.stat().st_size / 1e6,
            "perplexity": perplexity(published, rows),
            "kl_to_checkpoint": compare(floats, published).mean_kl,
            **equal_tokens,
        },
    ]
    following = read_passages(options.checkpoint, paths=pages, first=LONGEST_TOKENS)
    others = read_others(options.checkpoint, pages=pages)
    made = write_bundles(options, folder, calibration=following, others=others)
    for name, path in made.items():
        model = GgufRuntime().open_model(path, num_threads=1)
        logits = predict(model, rows)
        near, far = compare(floats, logits), compare(published, logits)
        settings = read_bundle(path).runtime_settings
        found.append(
            {
                "weights": name,
                "mb": model.size().weight_bytes / 1e6,
                "perplexity": perplexity(logits, rows),
                "kl_to_checkpoint": near.mean_kl,
                "argmax_as_checkpoint": near.argmax_agreement_ratio,
                "kl_to_published": far.mean_kl,
                "argmax_as_published": far.argmax_agreement_ratio,
                "max_logit_difference": near.max_logit_difference / near.max_logit,
                "max_scale_rounding": settings["max_scale_rounding"],
                "pre_tokenizer": settings["pre_tokenizer"],
                **count_equal_tensors(path / "model.gguf", options.file),
            }
        )
        del model, logits
        gc.collect()
    return found, made


def compare_tokens(options: Namespace, file: GgufFile, *, num: int) -> dict[str, Any]:
    """On how many texts the published file and the checkpoint's tokenizer agree."""
    loaded = load_tokenizer(options.checkpoint)
    vocabulary = describe_vocabulary(
        loaded, num_rows=file.vocab_size, end_ids=(), place=str(options.checkpoint)
    )
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    texts = make_texts(vocabulary, tokenizer=tokenizer, num=num)
    return {
        "num_texts": len(texts),
        "first_difference": str(compare_texts(tokenizer, file, texts=texts) or ""),
    }


def take_turns(options: Namespace, made: dict[str, Path]) -> list[dict[str, Any]]:
    """A row for each turn and bundle."""
    models = {
        name: GgufRuntime().open_model(path, num_threads=1)
        for name, path in made.items()
        if name in ("F32", "F16", "Q8_0", "Q4_0")
    }
    for model in models.values():
        measure_speed(model, num_tokens=2)
    turns, tokens = (1, 4) if options.quick else (3, 12)
    return [
        {"weights": name, "turn": turn, **measure_speed(model, num_tokens=tokens)}
        for turn, (name, model) in itertools.product(range(turns), models.items())
    ]


def find_ratios(speed: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns of how many times longer than in F32 a token takes."""
    times = {(row["turn"], row["weights"]): row["token_ms"] for row in speed}
    return {
        f"token_ms_{name}_over_F32": statistics.median(
            value / times[turn, "F32"] for (turn, found), value in times.items() if found == name
        )
        for name in sorted({name for _, name in times} - {"F32"})
    }


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("GGUF: a published file unpacked and written again")
    parser.add_argument("--file", type=Path, required=True, help="the published GGUF file")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="what the stage dequantize made of it"
    )
    parser.add_argument("--text", type=Path, nargs="+", help="pages instead of the English ones")
    parser.add_argument(
        "--weights", choices=WEIGHTS, nargs="+", help="these types alone, and no integers"
    )
    options = parser.parse_args()
    machine = environment()
    with tempfile.TemporaryDirectory() as name:
        rows, made = measure(options, folder=Path(name))
        speed = take_turns(options, made)
    report(
        options,
        environment=machine,
        rows=rows,
        tables={"speed": speed},
        ratios=find_ratios(speed),
        labels=("weights",),
    )


if __name__ == "__main__":
    main()
