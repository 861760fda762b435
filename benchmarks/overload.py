"""The service under more requests than it can answer: what it answers, how soon it refuses.

Its capacity is measured first, by clients that ask again as soon as they are answered; then
requests come by a Poisson process at 1, 2 and 5 times of it, whatever becomes of them. Goodput is
answers a second with status 200. `memory_mb` is taken after each load: it must not grow with it.

    python benchmarks/overload.py --bundle runs/demo/bundle --json overload.json

Without `--model`, a process that takes 1 s for each answer and gives 64 at once stands in for the
model: its capacity does not change with the machine's load, so that what is measured is the
service. With it, the bundle itself answers.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from load import LoadResult, run_job
from reporting import environment, make_parser, report
from serving import read_bundle, write_bodies
from serving_peers import RunningPeer, own_server, own_without_model

FACTORS = (1.0, 2.0, 5.0)
ANSWER_SECONDS = "1"
SLOTS = "64"
CAPACITY_CLIENTS = 80
"""More than are answered at once, so that the service knows its pace."""


def main() -> None:
    """Measure and report."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--bundle", type=Path, required=True, help="the model, or its rules")
    parser.add_argument("--model", action="store_true", help="the bundle answers")
    parser.add_argument("--language", choices=("en", "zh"), default="zh")
    parser.add_argument("--tokens", type=int, default=16, help="most tokens of an answer")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    start = environment()
    stand_in = own_without_model(options.bundle, ANSWER_SECONDS, SLOTS)
    peer = own_server(options.bundle, model=options.bundle.name) if options.model else stand_in
    seconds, turns = (4.0, 1) if options.quick else (options.seconds, options.turns)
    running = RunningPeer(peer)
    bodies = write_bodies(options, peer.model_field)
    rows: list[dict[str, Any]] = []
    try:
        running.start()
        run_job(running.job(bodies, num_clients=8, seconds=1.0))
        for turn in range(turns):
            found = run_job(running.job(bodies, num_clients=CAPACITY_CLIENTS, seconds=seconds))
            capacity = len(answered(found)) / found.wall_seconds
            for factor in FACTORS:
                before = running.cpu_seconds()[1]
                job = running.job(
                    bodies,
                    kind="open",
                    requests_per_second=factor * capacity,
                    seconds=seconds,
                    seed=turn,
                )
                found = run_job(job)
                row = describe(found, seconds=seconds)
                cpu = running.cpu_seconds()[1] - before
                rows.append(
                    {"load": f"{factor:g}x", "turn": turn, "capacity": round(capacity, 1)}
                    | row
                    | {
                        "first_process_ms": round(cpu / max(1, len(found.outcomes)) * 1e3, 3),
                        "memory_mb": round(running.memory_bytes() / 1e6, 1),
                    }
                )
                time.sleep(1.0)
    finally:
        running.stop()
    end = [round(value, 2) for value in os.getloadavg()]
    model = read_bundle(options.bundle) if options.model else f"{SLOTS} at once, {ANSWER_SECONDS} s"
    report(
        options,
        environment={**start, "load_average_at_end": end, "model": model},
        rows=rows,
        ratios=compare(rows),
        labels=("load",),
    )


def answered(found: LoadResult) -> list[float]:
    """Seconds of the requests that were answered."""
    return [outcome.seconds for outcome in found.outcomes if outcome.status == 200]


def describe(found: LoadResult, *, seconds: float) -> dict[str, Any]:
    """What became of a load."""
    good = answered(found)
    refused = [o.seconds for o in found.outcomes if o.status in (429, 503)]
    return {
        "requests": len(found.outcomes) + found.num_unfinished,
        "answered": len(good),
        "refused": len(refused),
        "others": len(found.outcomes) - len(good) - len(refused) + found.num_unfinished,
        "goodput": round(len(good) / max(seconds, found.wall_seconds), 1),
        "accepted_p50_ms": percentile(good, 0.5),
        "accepted_p99_ms": percentile(good, 0.99),
        "refused_p99_ms": percentile(refused, 0.99),
    }


def percentile(seconds: list[float], share: float) -> float | None:
    """In milliseconds; None of nothing."""
    return round(float(np.quantile(seconds, share)) * 1e3, 1) if seconds else None


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Each overload beside the load at capacity of the same turn, the worst turn of all."""
    found: dict[str, float] = {}
    for factor in FACTORS[1:]:
        load = f"{factor:g}x"
        pairs = [
            (row, base)
            for row in rows
            for base in rows
            if row["load"] == load and base["load"] == "1x" and base["turn"] == row["turn"]
        ]
        goodput = [row["goodput"] / max(row["capacity"], base["goodput"]) for row, base in pairs]
        slower = [row["accepted_p99_ms"] / base["accepted_p99_ms"] for row, base in pairs]
        refused = [row["refused_p99_ms"] for row, _ in pairs if row["refused_p99_ms"] is not None]
        memory = [row["memory_mb"] / base["memory_mb"] for row, base in pairs]
        found |= {
            f"{load}: goodput by peak": round(min(goodput), 3),
            f"{load}: accepted p99 by that at capacity": round(max(slower), 3),
            f"{load}: refused p99, ms": max(refused, default=0.0),
            f"{load}: memory by that at capacity": round(max(memory), 3),
        }
    return found


if __name__ == "__main__":
    main()
