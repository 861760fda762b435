"""Pruning curves: perplexity after ever larger cuts by each criterion, beside cuts at random.

Channels, heads and experts are cut out and whole layers left out of a model, at once and without
healing. Criteria are measured on some records of a file, or on another file, perplexity on others.
`unequal` ranks the channels of all layers at once and masks the lowest: what layers of one width
cost. `fitted` cuts by the default criteria, and fits what is left to the uncut model. Intervals are
of a cut model's perplexity over the uncut one's, over the records of both. Left out: healing, and
cuts of the residual stream, for which there is one criterion.
"""

import copy
import json
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from limbeck.models.structure import Groups, find_channels, find_heads, find_layers
from limbeck.pruning.allocation import pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.config import Reconstruction
from limbeck.pruning.criteria import Contribution, RandomScores, score_groups
from limbeck.pruning.depth import cut_layers, measure_influence
from limbeck.pruning.experts import find_experts
from limbeck.pruning.kept_parts import KeptParts
from limbeck.pruning.reconstruction import reconstruct
from limbeck.pruning.surgery import cut, find_rows, mask
from limbeck.runtimes.chat import read_chat

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
FITTED_RATIOS = (0.2, 0.4, 0.6)
SEEDS = (0, 1, 2)
NUM_RECORDS, QUICK_RECORDS = 24, 9
CALIBRATION_STEP = 3
"""Of so many records one is for the criteria, so that both parts spread over the file alike."""
LONGEST_TOKENS = 112
ROWS = 8
"""Records in a batch."""
NUM_SAMPLES = 2000
"""Of the bootstrap."""
Scores = Mapping[Groups, Float[Tensor, " groups"]]


@dataclass(frozen=True)
class Texts:
    """Records of which perplexity is measured."""

    batches: Sequence[Batch]
    counts: Float[np.ndarray, " records"]
    """Predicted tokens of each."""
    uncut: Float[np.ndarray, " records"]
    """Losses that the uncut model has there, summed over tokens."""


def read_batches(options: Namespace) -> tuple[list[Batch], list[Batch]]:
    """Batches for the criteria and for perplexity, of records spread over the file or files."""
    num = QUICK_RECORDS if options.quick else options.records
    rows = read_rows(options.texts, options=options, num=num)
    if options.calibration:
        others = read_rows(options.calibration, options=options, num=options.calibration_records)
        return make_batches(others), make_batches(rows)
    test = [row for index, row in enumerate(rows) if index % CALIBRATION_STEP]
    return make_batches(rows[::CALIBRATION_STEP]), make_batches(test)


def read_rows(path: Path, *, options: Namespace, num: int) -> list[tuple[np.ndarray, int]]:
    """The tokens of question and answer, and from which on they are predicted."""
    chat = read_chat(options.checkpoint)
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[:: max(1, len(lines) // num)][:num]]
    found = []
    for item in records:
        question = chat.render(as_prompt(item["question"]))
        row = np.array([*question, *chat.encode(item["answer"])])[:LONGEST_TOKENS]
        start = len(question) if options.of == "answers" else 0
        if start < len(row):
            found.append((row, start))
    return found


def make_batches(rows: Sequence[tuple[np.ndarray, int]]) -> list[Batch]:
    """Every token of a row from its start on is predicted, but the row's first."""
    parts = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return [
        pad_rows(
            [row for row, _ in part],
            starts=[start for _, start in part],
            pad=0,
            record_ids=list(range(len(part))),
        )
        for part in parts
    ]


@torch.no_grad()
def measure_losses(
    model: PreTrainedModel, *, batches: Sequence[Batch]
) -> tuple[Float[np.ndarray, " records"], Float[np.ndarray, " records"]]:
    """Of each record its loss, summed over the predicted tokens, and their number."""
    totals: list[float] = []
    counts: list[int] = []
    for batch in batches:
        logits = KeptForward(model)(batch).logits
        losses = functional.cross_entropy(logits.double(), batch.targets, reduction="none")
        of_rows = batch.kept.sum(dim=1).tolist()
        totals += [float(part.sum()) for part in losses.split(of_rows)]
        counts += of_rows
    return np.array(totals), np.array(counts, dtype=float)


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
    model: PreTrainedModel, *, what: str, calibration: Sequence[Batch], test: Texts
) -> Iterator[dict[str, Any]]:
    """A row for each criterion, seed and share of the channels, heads or experts."""
    find = {"channels": find_channels, "heads": find_heads, "experts": find_experts}[what]
    layers = find(model)
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
    model: PreTrainedModel, *, calibration: Sequence[Batch], test: Texts
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
    model: PreTrainedModel, *, calibration: Sequence[Batch], test: Texts
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


def fit_what_is_left(
    model: PreTrainedModel, *, calibration: Sequence[Batch], test: Texts
) -> Iterator[dict[str, Any]]:
    """Two rows for each share of the channels, heads and layers: as cut, and fitted."""
    whole = KeptParts(range(len(find_layers(model)[1])), range(model.config.hidden_size))
    for what, find in {"channels": find_channels, "heads": find_heads}.items():
        layers = find(model)
        found = calibrate(model, layers=layers, batches=calibration, needs="activations")
        number = layers[0].num_groups
        shares = FITTED_RATIOS if what == "channels" else [1 - n / number for n in (2, 1)]
        for num_kept in (number - round(share * number) for share in shares):
            kept = {
                groups: pick_kept(
                    score_groups(model, groups=groups, criterion=Contribution(), calibration=item),
                    num_kept=num_kept,
                )
                for groups, item in found.items()
            }
            parts = replace(whole, rows=find_rows(model, kept=kept))
            yield from fit_cut(
                model,
                cut(model, kept=kept),
                parts=parts,
                batches=calibration,
                found={"what": f"{what} fitted", "before": number},
                kept=num_kept,
                test=test,
            )
    influence = measure_influence(model, batches=calibration)
    influence[[0, -1]] = float("inf")
    number = len(influence)
    for share in FITTED_RATIOS:
        stay = pick_kept(influence, num_kept=number - round(share * number))
        yield from fit_cut(
            model,
            cut_layers(model, kept=stay),
            parts=replace(whole, layers=stay),
            batches=calibration,
            found={"what": "layers fitted", "before": number},
            kept=len(stay),
            test=test,
        )


def fit_cut(
    model: PreTrainedModel,
    smaller: PreTrainedModel,
    *,
    parts: KeptParts,
    batches: Sequence[Batch],
    found: Mapping[str, Any],
    kept: int,
    test: Texts,
) -> Iterator[dict[str, Any]]:
    """The rows of a model as it was cut, and fitted."""
    found = {**found, "seed": 0}
    yield describe(smaller, found={**found, "criterion": "as cut"}, kept=kept, test=test)
    damping = Reconstruction().damping_ratio
    reconstruct(smaller, uncut=model, kept=parts, batches=batches, damping_ratio=damping)
    yield describe(smaller, found={**found, "criterion": "fitted"}, kept=kept, test=test)


def describe(
    model: PreTrainedModel, *, found: Mapping[str, Any], kept: int, test: Texts
) -> dict[str, Any]:
    """The row of one cut; printed at once, for all of them take long."""
    losses, _ = measure_losses(model, batches=test.batches)
    drawn = np.random.default_rng(0).integers(len(losses), size=(NUM_SAMPLES, len(losses)))
    more = (losses - test.uncut)[drawn].sum(axis=1) / test.counts[drawn].sum(axis=1)
    low, high = np.exp(np.quantile(more, [0.025, 0.975]))
    row = {
        **found,
        "kept": kept,
        "cut_ratio": round(1 - kept / found["before"], 4),
        "parameters": sum(item.numel() for item in model.parameters()),
        "perplexity": math.exp(losses.sum() / test.counts.sum()),
        "over_uncut": math.exp((losses - test.uncut).sum() / test.counts.sum()),
        "over_uncut_low": float(low),
        "over_uncut_high": float(high),
    }
    print(*row.values(), flush=True)
    return row


def find_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """At a fifth of the channels or experts, perplexity over that of the uncut model."""
    near = [row for row in rows if abs(row["cut_ratio"] - 0.2) < 0.01]
    return {
        f"perplexity_{row['criterion']}_{row['seed']}_over_uncut": row["over_uncut"]
        for row in near
        if row["what"] in ("channels", "experts")
    }


def main() -> None:
    """Measure, print, write."""
    parser = make_parser("Perplexity after cuts by each criterion")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a float checkpoint")
    parser.add_argument("--texts", type=Path, required=True, help="JSONL of questions and answers")
    parser.add_argument(
        "--cuts",
        nargs="+",
        default=["channels", "heads", "layers", "unequal"],
        help="or experts, fitted",
    )
    parser.add_argument("--records", type=int, default=NUM_RECORDS)
    parser.add_argument("--calibration", type=Path, help="other texts for the criteria")
    parser.add_argument("--calibration-records", type=int, default=NUM_RECORDS)
    parser.add_argument("--of", choices=("texts", "answers"), default="texts", help="perplexity")
    options = parser.parse_args()
    machine = environment()
    torch.set_num_threads(1)
    model = load_model(options.checkpoint).eval()
    calibration, batches = read_batches(options)
    uncut, counts = measure_losses(model, batches=batches)
    test = Texts(batches, counts, uncut)
    nothing = {"what": "nothing", "criterion": "none", "seed": 0, "before": 1}
    rows = [describe(model, found=nothing, kept=1, test=test)]
    for what in options.cuts:
        if what == "layers":
            rows += leave_layers_out(model, calibration=calibration, test=test)
        elif what == "fitted":
            rows += fit_what_is_left(model, calibration=calibration, test=test)
        elif what == "unequal":
            rows += mask_unequal(model, calibration=calibration, test=test)
        else:
            rows += cut_groups(model, what=what, calibration=calibration, test=test)
    tokens = {
        "calibration_tokens": sum(int(batch.tokens.sum()) for batch in calibration),
        "test_tokens": int(counts.sum()),
        "test_records": len(counts),
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
