"""Pruning curves: perplexity after ever larger cuts by each criterion, beside cuts at random.

Channels and heads are cut out and whole layers left out of a published model, at once and without
healing. Criteria are measured on some records of a file, perplexity on others. `unequal` ranks the
channels of all layers at once and masks the lowest: what layers of one width cost. Left out:
healing, and cuts of the residual stream, for which there is one criterion.
"""

import copy
import json
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from reporting import environment, make_parser, report
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.config import resolve
from limbeck.contracts.registry import CRITERIA
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.checkpoints import load_model
from limbeck.models.forward import KeptForward
from limbeck.models.structure import Groups, find_channels, find_heads
from limbeck.pruning.allocation import pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import RandomScores, score_groups
from limbeck.pruning.depth import cut_layers, measure_influence
from limbeck.pruning.surgery import cut, mask
from limbeck.runtimes.chat import read_chat

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SEEDS = (0, 1, 2)
NUM_RECORDS, QUICK_RECORDS = 24, 9
CALIBRATION_STEP = 3
"""Of so many records one is for the criteria, so that both parts spread over the file alike."""
LONGEST_TOKENS = 112
ROWS = 8
"""Records in a batch."""
Scores = Mapping[Groups, Float[Tensor, " groups"]]


def read_batches(options: Namespace) -> tuple[list[Batch], list[Batch]]:
    """Batches for the criteria and for perplexity, of records spread over the file."""
    chat = read_chat(options.checkpoint)
    num = QUICK_RECORDS if options.quick else NUM_RECORDS
    lines = options.texts.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[:: len(lines) // num][:num]]
    rows = [
        np.array([*chat.render(as_prompt(item["question"])), *chat.encode(item["answer"])])
        for item in records
    ]
    rows = [row[:LONGEST_TOKENS] for row in rows]
    test = [row for index, row in enumerate(rows) if index % CALIBRATION_STEP]
    return make_batches(rows[::CALIBRATION_STEP]), make_batches(test)


def make_batches(rows: Sequence[np.ndarray]) -> list[Batch]:
    """Every token after the first of a row is predicted."""
    parts = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return [
        pad_rows(part, starts=[0] * len(part), pad=0, record_ids=list(range(len(part))))
        for part in parts
    ]


@torch.no_grad()
def measure_perplexity(model: PreTrainedModel, *, batches: Sequence[Batch]) -> float:
    """Of every token of the records but the first."""
    total, count = 0.0, 0
    for batch in batches:
        logits = KeptForward(model)(batch).logits
        total += float(functional.cross_entropy(logits.double(), batch.targets, reduction="sum"))
        count += len(batch.targets)
    return math.exp(total / count)


def score_all(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Sequence[Batch]
) -> Iterator[tuple[str, int, Scores]]:
    """Every criterion's scores, and those of the control by each seed."""
    for name in CRITERIA:
        kind = resolve(CRITERIA, name, what="criterion")
        if layers[0].kind not in kind.kinds:
            continue
        found = calibrate(model, layers=layers, batches=batches, needs=kind.needs)
        for seed in SEEDS if kind is RandomScores else SEEDS[:1]:
            criterion = RandomScores(seed=seed) if kind is RandomScores else kind()
            yield (
                name,
                seed,
                {
                    groups: score_groups(model, groups=groups, criterion=criterion, calibration=c)
                    for groups, c in found.items()
                },
            )


def cut_groups(
    model: PreTrainedModel, *, what: str, calibration: Sequence[Batch], test: Sequence[Batch]
) -> Iterator[dict[str, Any]]:
    """A row for each criterion, seed and share of the channels or heads."""
    layers = {"channels": find_channels, "heads": find_heads}[what](model)
    num_groups = layers[0].num_groups
    kept = [num_groups - round(ratio * num_groups) for ratio in RATIOS]
    if what == "heads":
        kept = list(range(num_groups - 1, 0, -1))
    for name, seed, scores in score_all(model, layers=layers, batches=calibration):
        for number in kept:
            smaller = cut(
                model, kept={item: pick_kept(scores[item], num_kept=number) for item in layers}
            )
            found = {"what": what, "criterion": name, "seed": seed, "before": num_groups}
            yield describe(smaller, found=found, kept=number, test=test)


def mask_unequal(
    model: PreTrainedModel, *, calibration: Sequence[Batch], test: Sequence[Batch]
) -> Iterator[dict[str, Any]]:
    """A row for each criterion and share of all layers' channels, however many a layer loses.

    Changes of the loss compare across layers as they are; other scores are divided by their root
    mean square in the layer.
    """
    layers = find_channels(model)
    for name in ("contribution", "taylor"):
        criterion = resolve(CRITERIA, name, what="criterion")()
        found = calibrate(model, layers=layers, batches=calibration, needs=criterion.needs)
        scores = [
            score_groups(model, groups=groups, criterion=criterion, calibration=item)
            for groups, item in found.items()
        ]
        if name != "taylor":
            scores = [item / item.square().mean().sqrt() for item in scores]
        every = torch.cat(scores)
        for ratio in RATIOS:
            gone = torch.zeros_like(every, dtype=torch.bool)
            gone[every.argsort()[: round(ratio * len(every))]] = True
            parts = gone.split([groups.num_groups for groups in layers])
            kept = [tuple((~part).nonzero().flatten().tolist()) for part in parts]
            masked = copy.deepcopy(model)
            mask(masked, kept=dict(zip(layers, kept, strict=True)))
            of_all = {"what": "unequal", "criterion": name, "seed": 0, "before": len(every)}
            widths = {"narrowest": min(map(len, kept)), "widest": max(map(len, kept))}
            row = describe(masked, found=of_all, kept=int((~gone).sum()), test=test)
            yield row | widths


def leave_layers_out(
    model: PreTrainedModel, *, calibration: Sequence[Batch], test: Sequence[Batch]
) -> Iterator[dict[str, Any]]:
    """A row for each order and share of the layers; the first and the last always stay."""
    influence = measure_influence(model, batches=calibration)
    number = len(influence)
    orders = [("influence", 0, influence)]
    for seed in SEEDS:
        drawn = torch.rand(number, generator=torch.Generator().manual_seed(seed))
        orders.append(("random", seed, drawn))
    for name, seed, scores in orders:
        scores[[0, -1]] = float("inf")
        for ratio in RATIOS:
            kept = pick_kept(scores, num_kept=number - round(ratio * number))
            smaller = cut_layers(model, kept=kept)
            found = {"what": "layers", "criterion": name, "seed": seed, "before": number}
            yield describe(smaller, found=found, kept=len(kept), test=test)


def describe(
    model: PreTrainedModel, *, found: Mapping[str, Any], kept: int, test: Sequence[Batch]
) -> dict[str, Any]:
    """The row of one cut; printed at once, for all of them take long."""
    row = {
        **found,
        "kept": kept,
        "cut_ratio": round(1 - kept / found["before"], 4),
        "parameters": sum(item.numel() for item in model.parameters()),
        "perplexity": measure_perplexity(model, batches=test),
    }
    print(*row.values(), flush=True)
    return row


def find_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """At a fifth of the channels, each criterion's perplexity over that of the uncut model."""
    uncut = rows[0]["perplexity"]
    near = [row for row in rows if row["what"] == "channels" and abs(row["cut_ratio"] - 0.2) < 0.01]
    return {
        f"perplexity_{row['criterion']}_{row['seed']}_over_uncut": row["perplexity"] / uncut
        for row in near
    }


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("Perplexity after cuts by each criterion")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a float checkpoint")
    parser.add_argument("--texts", type=Path, required=True, help="JSONL of questions and answers")
    parser.add_argument("--cuts", nargs="+", default=["channels", "heads", "layers", "unequal"])
    options = parser.parse_args()
    machine = environment()
    torch.set_num_threads(1)
    model = load_model(options.checkpoint).eval()
    calibration, test = read_batches(options)
    nothing = {"what": "nothing", "criterion": "none", "seed": 0, "before": 1}
    rows = [describe(model, found=nothing, kept=1, test=test)]
    for what in options.cuts:
        if what == "layers":
            rows += leave_layers_out(model, calibration=calibration, test=test)
        elif what == "unequal":
            rows += mask_unequal(model, calibration=calibration, test=test)
        else:
            rows += cut_groups(model, what=what, calibration=calibration, test=test)
    tokens = {
        "calibration_tokens": sum(int(batch.tokens.sum()) for batch in calibration),
        "test_tokens": sum(len(batch.targets) for batch in test),
    }
    report(
        options,
        environment=machine | tokens,
        rows=rows,
        ratios=find_ratios(rows),
        labels=("what", "criterion", "cut_ratio"),
    )


if __name__ == "__main__":
    main()
