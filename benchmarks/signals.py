"""Recorded signals: bytes a token, errors, decoding speed, and what learning from them costs.

The teacher's logits are drawn: Zipf's law over the vocabulary, noise, and a few tokens that the
context favours, at three sharpnesses. Formats are measured at a vocabulary of 151,936; bytes are
those of the files, decoding is all from a batch's rows to its targets, from mapped files. The cost
is that of optimizer steps of a Qwen3 student of 6.8 M parameters with a vocabulary of 8,192:
soft targets at T = 2 with cross-entropy (as `distill` mixes them) against cross-entropy alone, on
the same micro-batches, in turns. Seconds are those of a core's work on one thread, which waiting
for a busy core does not lengthen. Left out: reading and tokenising data, and any quality.
"""

import copy
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import numpy as np
import torch
from jaxtyping import Float
from reporting import environment, make_parser, median_interval, name_interval, report
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from limbeck.contracts.artifacts import hash_file
from limbeck.data.loading.batches import split_by_length
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.signals.config import Codec, SampledTokens, TopTokens
from limbeck.distillation.signals.fidelity import mean_errors, measure_errors
from limbeck.distillation.signals.manifest import (
    SIGNALS_FILE,
    SignalsManifest,
    shard_paths,
    write_signals_manifest,
)
from limbeck.distillation.signals.shards import (
    COUNTS,
    MARKS,
    record_checksums,
    write_index,
    write_shard,
)
from limbeck.distillation.targets import SparseOutput
from limbeck.distillation.teachers.offline import OfflineTeacher
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import Objective, ObjectiveContext
from limbeck.objectives.config import Needs, NextToken

LARGE_VOCAB, STUDENT_VOCAB = 151_936, 8_192
FORMATS: tuple[TopTokens | SampledTokens, ...] = (
    TopTokens(kind="top"),
    SampledTokens(kind="sampled"),
    SampledTokens(kind="sampled", power=0.5),
)
SHARPNESS = {"sharp": 24.0, "middle": 18.0, "flat": 12.0}
"""How far the context lifts the tokens that it favours, in nats."""
FAVOURED_RATIO = 2e-4
STUDENT = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
MEDIAN_TOKENS, SPREAD = (40, 60), 0.8
"""Of questions and answers; the standard deviation of the logarithm of a length."""
MOST_TOKENS = (200, 300)
BATCHING = BatchingConfig(per_device_train_batch_size=4, gradient_accumulation_steps=4)


def draw_logits(name: str, *, kept: int, vocab: int) -> Float[Tensor, "kept vocab"]:
    """A teacher's logits below the largest."""
    generator = torch.Generator().manual_seed(0)
    zipf = -torch.arange(1, vocab + 1).log()[torch.randperm(vocab, generator=generator)]
    logits = zipf + torch.randn(kept, vocab, generator=generator) * 1.5
    favoured = torch.rand(kept, vocab, generator=generator) < FAVOURED_RATIO
    logits += favoured * SHARPNESS[name] * torch.rand(kept, vocab, generator=generator)
    return logits - logits.max(dim=-1, keepdim=True).values


def draw_records(count: int, *, vocab: int) -> tuple[list[np.ndarray], list[int]]:
    """Token ids, and where each answer starts."""
    rng = np.random.default_rng(0)
    rows, starts = [], []
    for _ in range(count):
        asked, answered = (
            int(np.clip(rng.lognormal(np.log(median), SPREAD), 4, most))
            for median, most in zip(MEDIAN_TOKENS, MOST_TOKENS, strict=True)
        )
        rows.append(rng.integers(4, vocab, asked + answered).astype(np.int32))
        starts.append(asked)
    return rows, starts


def make_batch(records: tuple[list[np.ndarray], list[int]], places: list[int]) -> Batch:
    """Some records as a batch."""
    rows, starts = records
    return pad_rows(
        [rows[place] for place in places],
        starts=[starts[place] for place in places],
        pad=0,
        record_ids=places,
    )


def write_signals(
    folder: Path, codec: Codec, batch: Batch, logits: Float[Tensor, "kept vocab"]
) -> float:
    """Record the logits, over and over, as those of the batch's records; returns bytes a token."""
    vocab = logits.shape[1]
    description = SignalsManifest(
        targets=codec,
        layers=(),
        hidden_precision="float16",
        vocab=vocab,
        hidden=1,
        num_records=len(batch.record_ids),
        shard_records=len(batch.record_ids),
        batching=BATCHING,
        corpus_hash="",
        tokenizer_hash="",
        template_hash="",
        teacher_hash="",
    )
    folder.mkdir()
    write_signals_manifest(folder, description, record_ids=batch.record_ids.numpy())
    arrays = codec.encode(logits, generator=torch.Generator().manual_seed(0))
    kept = int(batch.kept.sum())
    times, rest = divmod(kept, len(logits))
    widths = codec.widths(arrays, vocab=vocab)
    last = {
        name: array[: int(widths[:rest].sum()) if name == "packed" else rest]
        for name, array in arrays.items()
    }
    whole = {name: np.concatenate([array] * times + [last[name]]) for name, array in arrays.items()}
    whole[COUNTS] = batch.kept.sum(dim=1).to(torch.int32).numpy()
    whole[MARKS] = record_checksums(batch)
    (path,) = shard_paths(folder, description)
    manifest_hash = hash_file(folder / SIGNALS_FILE)
    write_index(folder, [write_shard(path, whole, manifest_hash=manifest_hash, sums={})])
    return path.stat().st_size / kept


def measure_formats(*, kept: int, num_turns: int) -> list[dict[str, Any]]:
    """A row for each format, sharpness and turn."""
    rows = []
    records = draw_records(96, vocab=LARGE_VOCAB)
    places = list(range(len(records[0])))
    batch = make_batch(records, places)
    parts = [make_batch(records, places[first : first + 16]) for first in range(0, 96, 16)]
    num_positions = sum(int(part.kept.sum()) for part in parts)
    for sharpness in SHARPNESS:
        logits = draw_logits(sharpness, kept=kept, vocab=LARGE_VOCAB)
        for codec in FORMATS:
            reference_temperature = codec.reference_temperature()
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text) / "signals"
                num_bytes = write_signals(folder, codec, batch, logits)
                teacher = OfflineTeacher(folder, needs=Needs(reference_temperature))
                output = teacher(batch).output
                assert isinstance(output, SparseOutput)
                errors = mean_errors(measure_errors(output.rows(slice(kept)), logits))
                for turn in range(num_turns):
                    started = time.process_time()
                    for part in parts:
                        teacher(part)
                    seconds = time.process_time() - started
                    rows.append(
                        {
                            "measured": f"{codec.kind} T={reference_temperature:g}",
                            "teacher": sharpness,
                            "turn": turn,
                            "bytes_per_token": num_bytes,
                            **errors,
                            "decode_tokens_per_second": num_positions / seconds,
                        }
                    )
    return rows


class Side:
    """A student with its optimizer and its objective."""

    def __init__(self, student: PreTrainedModel, objective: Objective) -> None:
        self.student, self.objective = student, objective
        self.forward = KeptForward(student)
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)

    def step(self, batches: list[Batch]) -> float:
        """Seconds of a core in one optimizer step."""
        started = time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        count = sum(int(batch.kept.sum()) for batch in batches)
        for batch in batches:
            (self.objective(self.forward, batch).sum / count).backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        return time.process_time() - started


def measure_steps(*, num_steps: int) -> list[dict[str, Any]]:
    """A row for each step and side; the sides take turns on the same micro-batches."""
    torch.manual_seed(0)
    config = Qwen3Config(**STUDENT, vocab_size=STUDENT_VOCAB, tie_word_embeddings=True)  # pyright: ignore[reportArgumentType, reportCallIssue]
    student = Qwen3ForCausalLM(config)
    records = draw_records(64, vocab=STUDENT_VOCAB)
    lengths = np.asarray([len(row) for row in records[0]])
    rows, rng = [], np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as text:
        sides = {
            "cross_entropy": Side(
                copy.deepcopy(student),
                NextToken(kind="next_token").build(ObjectiveContext(student)),
            )
        }
        for codec in FORMATS[:2]:
            folder = Path(text) / codec.kind
            write_signals(
                folder,
                codec,
                make_batch(records, list(range(64))),
                draw_logits("middle", kept=64, vocab=STUDENT_VOCAB),
            )
            objective = SoftTarget(kind="soft_target", temperature=2.0)
            teacher = OfflineTeacher(folder, needs=objective.needs())
            sides[codec.kind] = Side(
                copy.deepcopy(student), objective.build(ObjectiveContext(student, teacher=teacher))
            )
        names = list(sides)
        for step in range(-1, num_steps):
            chosen = rng.permutation(64)[
                : BATCHING.per_device_train_batch_size * BATCHING.gradient_accumulation_steps
            ]
            parts = split_by_length(chosen, lengths=lengths[chosen], config=BATCHING)
            batches = [make_batch(records, part) for part in parts]
            tokens = int(lengths[chosen].sum())
            for name in names[step % len(names) :] + names[: step % len(names)]:
                seconds = sides[name].step(batches)
                if step >= 0:
                    rows.append(
                        {
                            "measured": f"steps {name}",
                            "teacher": "",
                            "turn": step,
                            "step_seconds": seconds,
                            "tokens_per_second": tokens / seconds,
                        }
                    )
    return rows


def summarise(formats: list[dict[str, Any]], steps: list[dict[str, Any]]) -> dict[str, float]:
    """The named ratios: of formats, medians over sharpnesses and turns; of steps, over pairs.

    The cost of a step has its 95 % interval: where that holds 1.05, the run cannot tell the cost
    from 5 %, nor from none where it holds 1.
    """
    ratios: dict[str, float] = {}
    for codec in FORMATS if formats else ():
        name = f"{codec.kind} T={codec.reference_temperature():g}"
        prefix = "" if codec.kind == "top" else f"{codec.kind}_t{codec.reference_temperature():g}_"
        mine = [row for row in formats if row["measured"] == name]
        for what in ("bytes_per_token", "mean_abs_error", "decode_tokens_per_second"):
            ratios[prefix + what] = statistics.median(row[what] for row in mine)
    seconds = {(row["measured"], row["turn"]): row["step_seconds"] for row in steps}
    turns = sorted({turn for _, turn in seconds})
    for kind, prefix in (("top", ""), ("sampled", "sampled_")):
        pairs = [
            seconds[f"steps {kind}", turn] / seconds["steps cross_entropy", turn] for turn in turns
        ]
        name = f"{prefix}overhead_over_cross_entropy"
        ratios |= name_interval(name, median_interval(pairs))
    return ratios


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("recorded signals: size, errors, decoding, and the cost of learning")
    parser.add_argument("--steps-only", type=int, help="so many optimizer steps, and no formats")
    options = parser.parse_args()
    machine = environment()
    torch.set_num_threads(1)
    formats = []
    if options.steps_only is None:
        formats = measure_formats(kept=32 if options.quick else 64, num_turns=3)
    steps = measure_steps(num_steps=options.steps_only or (8 if options.quick else 90))
    report(
        options,
        environment=machine,
        rows=formats,
        ratios=summarise(formats, steps),
        labels=("measured", "teacher"),
        tables={"steps": steps},
    )


if __name__ == "__main__":
    main()
