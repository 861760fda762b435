"""What a recipe will cost, before any training: sizes, FLOPs, bytes by number format, time.

Where the corpus exists its tokenizer and lengths are used; otherwise they are assumed, and the plan
says so. Left out: the arithmetic of sizes (`limbeck.models.sizing`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from transformers import AutoConfig, PreTrainedConfig

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.data.batching import Batches
from limbeck.models.images import ImageFormat
from limbeck.models.loading import load_tokenizer
from limbeck.models.sizing import (
    ModelSize,
    Speed,
    estimate_training_seconds,
    measure_speed,
    size_model,
)
from limbeck.models.vocabulary import Vocabulary
from limbeck.pipeline import Entry

ASSUMED_VOCAB = 2000
ASSUMED_TOKENS = 40.0
"""Tokens of a record, padding included, where no corpus tells."""
ASSUMED_IMAGE = ImageFormat(32, 1, 0.5, 0.5, num_tokens=16, token_id=0)
"""For the lengths of records with images, which no encoder reads here."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of the data before it is used."""

    vocabulary: Vocabulary
    record_tokens: float
    measured: bool


def plan(entries: Mapping[str, Entry], *, root: Path) -> dict[str, Any]:
    """One row per entry, and the assumptions behind the rows; `root` is the run's folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = measure_speed(device=device)
    configs: dict[str, PreTrainedConfig] = {}
    known: dict[str, Known] = {}
    rows = []
    for entry in entries.values():
        config = _find_config(entry, configs, known, root)
        if config is None:
            rows.append({"name": entry.name, "stage": entry.config.stage})
            continue
        configs[entry.name] = config
        size = size_model(config, context_tokens=_context_tokens(config))
        rows.append(_row(entry, size, speed, _know(entry, known, root)))
    return {
        "rows": rows,
        "seconds": sum(row.get("seconds", 0.0) for row in rows),
        "speed": dataclasses.asdict(speed),
        "corpora": {
            name: {"vocab": len(item.vocabulary), "record_tokens": item.record_tokens,
                   "assumed": not item.measured}
            for name, item in known.items()
        },
    }  # fmt: skip


def _target(entry: Entry, field: str) -> str:
    return next((item.target for item in entry.references if item.field == field), "")


def _know(entry: Entry, known: dict[str, Known], root: Path) -> Known:
    """The corpus of an entry: measured when it is made already, assumed otherwise."""
    name = _target(entry, "corpus")
    if name not in known:
        folder = root / name if (root / name).is_dir() else Path(name)
        if name and (folder / "tokenizer").is_dir():
            tokenizer = load_tokenizer(folder / "tokenizer")
            batches = Batches(
                folder, tokenizer=tokenizer, image_format=ASSUMED_IMAGE,
                config=entry.config.batching,  # pyright: ignore[reportAttributeAccessIssue]
            )  # fmt: skip
            mean = batches.num_tokens / len(batches)
            known[name] = Known(Vocabulary.of(tokenizer), mean, True)
        else:
            known[name] = Known(Vocabulary(ASSUMED_VOCAB), ASSUMED_TOKENS, False)
    return known[name]


def _find_config(
    entry: Entry, configs: Mapping[str, PreTrainedConfig], known: dict[str, Known], root: Path
) -> PreTrainedConfig | None:
    """The architecture that an entry makes; None where it makes no model."""
    if entry.config.make not in ("checkpoint", "bundle"):
        return None
    settings: Any = entry.config
    for field in ("model", "student", "checkpoint"):
        start = getattr(settings, field, None)
        if isinstance(start, Config):
            return start.describe(_know(entry, known, root).vocabulary)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(start, str):
            config = configs.get(start) or _read_config(start)
            if entry.config.stage == "extend":
                return settings.encoder.describe(config, image_token_id=0)
            if entry.config.stage != "prune":
                return config
            changes = {
                "intermediate_size": _shrink(config.intermediate_size, settings.channels_ratio,
                                             settings.multiple),
                "num_attention_heads": _shrink(config.num_attention_heads, settings.heads_ratio, 1),
                "num_key_value_heads": _shrink(config.num_key_value_heads, settings.heads_ratio, 1),
            }  # fmt: skip
            return type(config).from_dict(config.to_dict() | changes)
    return None


def _context_tokens(config: PreTrainedConfig) -> int:
    return min(128, config.get_text_config().max_position_embeddings)


def _shrink(width: int, ratio: float, multiple: int) -> int:
    return max(1, round(width * (1 - ratio) / multiple)) * multiple


def _read_config(folder: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: its config cannot be read, so it cannot be sized: {str(error)[:300]}"
        ) from error


def _row(entry: Entry, size: ModelSize, speed: Speed, known: Known) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "stage": entry.config.stage,
        "parameters": size.parameters,
        "active_parameters": size.active_parameters,
        "skipped_expert_ratio": size.skipped_ratio,
        "forward_flops_per_token": size.forward_flops,
        "kv_cache_bytes_per_token": size.kv_cache_bytes,
        "bytes": {item.name: item.total_bytes for item in size.formats},
    }
    settings: Any = entry.config
    if hasattr(settings, "training"):
        batching = settings.batching
        records = settings.training.steps * batching.batch_records * batching.accumulation_steps
        tokens = int(records * known.record_tokens)
        row["training_tokens"] = tokens
        row["seconds"] = estimate_training_seconds(size, num_tokens=tokens, speed=speed)
    return row


def draw(planned: Mapping[str, Any]) -> Group:
    """The plan as tables to read."""
    table = Table("entry", "stage", "parameters", "active", "MFLOP/token", "training tokens",
                  "time, about", box=None, header_style="bold")  # fmt: skip
    formats = [row["bytes"] for row in planned["rows"] if "bytes" in row]
    names = list(formats[0]) if formats else []
    sizes = Table("entry", *names, title="MB by number format, scales and embeddings counted",
                  title_justify="left", box=None, header_style="bold")  # fmt: skip
    for row in planned["rows"]:
        if "parameters" not in row:
            table.add_row(row["name"], row["stage"], "-", "-", "-", "-", "-")
            continue
        seconds = f"{row['seconds']:,.0f} s" if "seconds" in row else "-"
        tokens = f"{row['training_tokens']:,}" if "training_tokens" in row else "-"
        table.add_row(
            row["name"], row["stage"], f"{row['parameters']:,}", f"{row['active_parameters']:,}",
            f"{row['forward_flops_per_token'] / 1e6:,.1f}", tokens, seconds,
        )  # fmt: skip
        sizes.add_row(row["name"], *(f"{row['bytes'][name] / 1e6:,.2f}" for name in names))
    speed = planned["speed"]
    notes = [
        f"training {planned['seconds']:,.0f} s in all at {speed['flops_per_second'] / 1e9:,.0f} "
        f"GFLOP/s measured now ({speed['device']}, {speed['num_threads']} threads)"
    ]
    for name, item in planned["corpora"].items():
        how = "assumed, for the corpus is not made yet" if item["assumed"] else "measured"
        notes.append(
            f"{name}: {item['vocab']:,} tokens in the vocabulary, {item['record_tokens']:.1f} a "
            f"record ({how})"
        )
    return Group(table, "", sizes, "", *notes)
