"""A mixture of experts against dense models: less compute for equal loss, more at equal compute.

Every model sees the same records for the same steps. `dense_N` has N feed-forward channels; the
narrowest has the mixture's active parameters, the gate's counted. What a dense model needs for the
mixture's validation loss, and for its accuracy, is interpolated between the widths by seed,
linearly in the logarithm of FLOPs and of milliseconds. That rule stands before a run; a single
width picked after one is not a saving at equal quality. Left out: scaling over sizes and data.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ablating import (
    Variant,
    compare,
    describe_base,
    measure,
    seed_interval,
    time_training,
    train,
)
from reporting import environment, medians, parse_options, report

STEPS = 700
SPARSE = "weighted_sum"
WIDTHS = (256, 384, 1024)
SHARED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "initializer_range",
)
COLUMNS = ("validation_loss", "recall", "symptom_sets", "accuracy")


def list_variants(steps: int) -> list[Variant]:
    """The mixture, the dense model of its active parameters, and wider ones."""
    base = describe_base()
    # A gated feed-forward channel holds 3 x hidden_size weights, the gate experts x hidden_size.
    active = base["num_experts_per_tok"] * base["moe_intermediate_size"] + base["num_experts"] / 3
    equal = 4 * round(active / 4)
    shared = {name: base[name] for name in SHARED}
    dense = [
        Variant(f"dense_{width}", {"kind": "dense", **shared, "intermediate_size": width}, steps)
        for width in (equal, *WIDTHS)
    ]
    return [Variant(SPARSE, base | {"fusion": SPARSE}, steps), *dense]


QUALITIES = {
    "loss": lambda row: -row["validation_loss"],
    "accuracy": lambda row: row["accuracy"],
}
"""By what two models are equally good; more is better."""


def saved(
    rows: Sequence[Mapping[str, Any]], costs: Mapping[str, float], *, what: str, equal: str
) -> Iterator[tuple[str, float]]:
    """Share of a dense model's cost that the mixture saves at equal quality.

    `costs` are by variant. Where the widest dense model is not as good, its cost stands for what
    would be needed, so the share of that seed is a lower bound.
    """
    shares = []
    for seed in sorted({row["seed"] for row in rows}):
        good = {row["variant"]: QUALITIES[equal](row) for row in rows if row["seed"] == seed}
        dense = [name for name in good if name != SPARSE]
        # Where more compute did not help, the cheaper model stands for it.
        reached = np.maximum.accumulate([good[name] for name in dense])
        needed = np.interp(good[SPARSE], reached, [math.log(costs[name]) for name in dense])
        shares.append(1 - costs[SPARSE] / math.exp(needed))
    for part, value in zip(("", "_low", "_high"), seed_interval(shares), strict=True):
        yield f"{what}_saved_at_equal_{equal}{part}", value


def count_unreached(rows: Sequence[Mapping[str, Any]]) -> int:
    """Seeds of which no dense model reached the mixture's loss."""
    sparse = {row["seed"]: row["validation_loss"] for row in rows if row["variant"] == SPARSE}
    return sum(
        all(
            row["validation_loss"] > loss
            for row in rows
            if row["seed"] == seed and row["variant"] != SPARSE
        )
        for seed, loss in sparse.items()
    )


def find_ratios(
    rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Savings at equal loss, and the mixture against each dense model, paired by seed."""
    flops = {row["variant"]: row["forward_kflops_per_token"] for row in rows}
    middle = {row["variant"]: row for row in medians(times, labels=("variant",))}
    costs = {"flops": flops} | {
        column: {name: row[column] for name, row in middle.items()}
        for column in ("forward_ms", "train_ms")
    }
    ratios: dict[str, float] = {}
    for equal in QUALITIES:
        for what, by_variant in costs.items():
            ratios |= dict(saved(rows, by_variant, what=what, equal=equal))
    ratios["seeds_where_no_dense_model_reached_the_loss"] = float(count_unreached(rows))
    for name in middle:
        if name != SPARSE:
            ratios[f"flops_fewer_than_{name}"] = 1 - flops[SPARSE] / flops[name]
            for column in ("forward_ms", "train_ms"):
                ratio = middle[SPARSE][column] / middle[name][column]
                ratios[f"{column}_fewer_than_{name}"] = 1 - ratio
            for column in COLUMNS:
                ratios |= dict(compare(rows, name=SPARSE, against=name, column=column))
    return ratios


def main() -> None:
    options = parse_options(__doc__ or "")
    machine = environment()
    seeds = (0, 1, 2)
    variants = list_variants(8 if options.quick else STEPS)
    made = train(
        variants, seeds=seeds, name="sparse-dense-quick" if options.quick else "sparse-dense"
    )
    rows = measure(variants, seeds=seeds, made=made)
    times = time_training(variants, corpus=made["corpus"].path, turns=3 if options.quick else 15)
    ratios = find_ratios(rows, times)
    report(
        options,
        environment=machine,
        rows=rows,
        ratios=ratios,
        labels=("variant",),
        tables={"times": times},
    )


if __name__ == "__main__":
    main()
