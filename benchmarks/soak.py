"""Mixed load for minutes or hours: does memory, or the number of open files, grow?

Whole answers, streams, clients that hang up, faulty and unauthorised requests come at a low rate.
Of every process resident memory and open files are sampled; the slope over the second half of the
run, with its 95 % interval (Theil and Sen's estimate, by samples), says what grows in an hour.

    python benchmarks/soak.py --bundle runs/demo/bundle --minutes 60 --json soak.json
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import psutil
from load import run_job
from reporting import environment, make_parser, report
from scipy.stats import theilslopes
from serving import read_bundle, write_bodies
from serving_peers import RunningPeer, own_server

Estimate = tuple[float, float, float, float]
NUM_CLIENTS = 4
ROUND_SECONDS = 4.0
PAUSE_SECONDS = 4.0
SAMPLE_SECONDS = 2.0
FAULTS = (b"{", b"{}", b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}')


def main() -> None:
    """Run the load, sample, and report."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--language", choices=("en", "zh"), default="zh")
    parser.add_argument("--tokens", type=int, default=16, help="most tokens of an answer")
    options = parser.parse_args()
    start = environment()
    running = RunningPeer(own_server(options.bundle, model=options.bundle.name))
    seconds = 60.0 if options.quick else options.minutes * 60
    samples: list[tuple[float, dict[str, tuple[float, float]]]] = []
    over = threading.Event()
    try:
        running.start()
        began = time.monotonic()

        def sample() -> None:
            while not over.wait(SAMPLE_SECONDS):
                samples.append((time.monotonic() - began, look(running)))

        sampler = threading.Thread(target=sample)
        sampler.start()
        counts = ask_until(running, options, end=began + seconds)
        over.set()
        sampler.join()
    finally:
        over.set()
        running.stop()
    rows = [slopes(name, samples) for name in sorted(samples[-1][1])]
    end = [round(value, 2) for value in os.getloadavg()]
    report(
        options,
        environment={
            **start,
            "load_average_at_end": end,
            "bundle": read_bundle(options.bundle),
            "minutes": seconds / 60,
            "requests": counts,
        },
        rows=rows,
        ratios={},
        labels=("process",),
    )
    print("requests by status", counts)


def look(running: RunningPeer) -> dict[str, tuple[float, float]]:
    """Megabytes and open files of every process."""
    found = {}
    for place, process in enumerate(running.processes()):
        with process.oneshot():
            name = "server" if not place else f"process {place}"
            try:
                found[name] = (process.memory_info().rss / 1e6, float(process.num_fds()))
            except psutil.Error:
                continue
    return found


def ask_until(running: RunningPeer, options: Any, *, end: float) -> dict[str, int]:
    """Mixed requests until then; how many had which status."""
    bodies = write_bodies(options, running.peer.model_field)
    streams = [json.dumps(json.loads(body) | {"stream": True}) for body in bodies]
    counts: dict[str, int] = {}
    while time.monotonic() < end:
        for some in (bodies, streams):
            job = running.job(some, num_clients=NUM_CLIENTS, seconds=ROUND_SECONDS / 2)
            for outcome in run_job(job).outcomes:
                counts[str(outcome.status)] = counts.get(str(outcome.status), 0) + 1
        # Clients that hang up: the job ends at once, with its requests on their way.
        run_job(running.job(streams, num_clients=NUM_CLIENTS, seconds=0.01, grace_seconds=0.0))
        for fault in FAULTS:
            for headers in (running.headers, {}):
                status = str(post(running, fault, headers=headers))
                counts[status] = counts.get(status, 0) + 1
        time.sleep(PAUSE_SECONDS)
    return counts


def post(running: RunningPeer, body: bytes, *, headers: dict[str, str]) -> int:
    """The status of one request."""
    url = running.job([]).url
    request = urllib.request.Request(
        url, body, {**headers, "Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def slopes(
    name: str, samples: list[tuple[float, dict[str, tuple[float, float]]]]
) -> dict[str, Any]:
    """What one process gains in an hour, by the second half of the samples."""
    seen = [(when, found[name]) for when, found in samples if name in found]
    later = seen[len(seen) // 2 :]
    hours = [when / 3600 for when, _ in later]
    row: dict[str, Any] = {"process": name, "samples": len(later)}
    for place, what in enumerate(("memory_mb", "files")):
        values = [measured[place] for _, measured in later]
        slope, _, low, high = cast(Estimate, theilslopes(values, hours))
        row |= {
            what: round(values[-1], 1),
            f"{what}_an_hour": round(float(slope), 2),
            f"{what}_low": round(float(low), 2),
            f"{what}_high": round(float(high), 2),
        }
    return row


if __name__ == "__main__":
    main()
