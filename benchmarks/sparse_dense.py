"""A mixture of experts against dense models: less compute for equal loss, more at equal compute.

Every model sees the same records for the same steps. `dense_N` has N feed-forward channels; the
narrowest has the mixture's active parameters, the gate's counted. The compute that a dense model
needs for the mixture's validation loss is interpolated between the widths, linearly in the
logarithm of FLOPs. Left out: scaling over sizes and data.
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
from reporting import environment, parse_options, report

STEPS = 400
SPARSE = "weighted_sum"
WIDTHS = (384, 1024, 2816)
SHARED = ("hidden", "num_layers", "num_heads", "num_key_value_heads", "head_width",
          "initializer_range")  # fmt: skip
COLUMNS = ("validation_loss", "recall", "triage", "accuracy")


def list_variants(steps: int) -> list[Variant]:
    """The mixture, the dense model of its active parameters, and wider ones."""
    base = describe_base()
    # A gated feed-forward channel holds 3 x hidden weights; the gate has experts x hidden.
    active = base["experts_per_token"] * base["expert_width"] + base["num_experts"] / 3
    equal = 4 * round(active / 4)
    shared = {name: base[name] for name in SHARED}
    dense = [
        Variant(f"dense_{width}", {"kind": "dense", **shared, "feed_forward": width}, steps)
        for width in (equal, *WIDTHS)
    ]
    return [Variant(SPARSE, base | {"fusion": SPARSE}, steps), *dense]


def saved_compute(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Share of a dense model's FLOPs per token that the mixture saves at its own loss.

    Where the widest dense model does not reach that loss, the share is a lower bound, and
    `bounds` counts the seeds of which that is true.
    """
    shares, bounds = [], 0
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        (sparse,) = (row for row in mine if row["variant"] == SPARSE)
        dense = [row for row in mine if row["variant"] != SPARSE]
        # Where more compute did not lower the loss, the cheaper model stands for it.
        losses = np.minimum.accumulate([row["validation_loss"] for row in dense])
        flops = np.log([row["forward_kflops_per_token"] for row in dense])
        bounds += int(losses[-1] > sparse["validation_loss"])
        needed = np.interp(-sparse["validation_loss"], -losses, flops)
        shares.append(1 - sparse["forward_kflops_per_token"] / math.exp(needed))
    for part, value in zip(("", "_low", "_high"), seed_interval(shares), strict=True):
        yield f"compute_saved_at_equal_loss{part}", value
    yield "seeds_where_no_dense_model_reached_the_loss", float(bounds)


def main() -> None:
    options = parse_options(__doc__ or "")
    machine = environment()
    seeds = (0, 1, 2)
    variants = list_variants(8 if options.quick else STEPS)
    made = train(variants, seeds=seeds, name="ablation-quick" if options.quick else "ablation")
    rows = measure(variants, seeds=seeds, made=made)
    times = time_training(variants, corpus=made["corpus"].path, turns=3 if options.quick else 15)
    equal = variants[1].name
    ratios = dict(saved_compute(rows))
    for column in COLUMNS:
        ratios |= dict(compare(rows, name=SPARSE, against=equal, column=column))
    report(
        options, environment=machine, rows=rows, ratios=ratios, labels=("variant",),
        tables={"times": times},
    )  # fmt: skip


if __name__ == "__main__":
    main()
