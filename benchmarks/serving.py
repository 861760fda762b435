"""The service beside other servers: processor time of a request, latency, tokens a second.

Every server answers the same questions, from 1 to 256 clients that ask again as soon as they are
answered, in turns within one run. Rows of the model `none` show what a server costs beside any
model: ours with keys, safety rules, validation, journal and metrics on. Processor time is that of
all processes of a server, by the kernel's count; that of the client is shown beside it.

    python benchmarks/serving.py --bundle runs/demo/bundle --json serving.json
    python benchmarks/serving.py --bundle smollm2/bundle --gguf SmolLM2.gguf --checkpoint smollm2 \
        --peers peers/bin/python --language en

Other servers are measured where they are installed (docs/serving/performance.md says how): the
script names those that are missing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from load import run_job
from reporting import environment, make_parser, medians, report
from serving_peers import (
    Peer,
    RunningPeer,
    litserve,
    llama_cpp,
    own_server,
    own_without_model,
    transformers_serve,
)

NUM_CLIENTS = (1, 16, 64, 256)
QUESTIONS = {
    "zh": (
        "高血压 糖尿病 感冒 胃炎 肺炎 哮喘 贫血 痛风 湿疹 鼻炎 咽炎 肝炎",
        "有哪些常见症状？ 怎么治疗？ 需要做哪些检查？ 应该挂什么科？ 平时吃什么好？",
    ),
    "en": (
        "hypertension diabetes asthma anaemia gout eczema hepatitis bronchitis gastritis rhinitis",
        "symptoms? causes? treatment? prevention? diagnosis? complications?",
    ),
}
WARM_SECONDS = 1.0


def main() -> None:
    """Measure every server and report."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--bundle", type=Path, required=True, help="what ours and LitServe serve")
    parser.add_argument("--gguf", type=Path, help="the same weights for llama.cpp")
    parser.add_argument("--checkpoint", type=Path, help="the same weights for transformers serve")
    parser.add_argument("--peers", type=Path, help="Python of the environment of LitServe")
    parser.add_argument("--before", type=Path, help="a checkout of another version, measured too")
    parser.add_argument("--language", choices=sorted(QUESTIONS), default="zh")
    parser.add_argument("--tokens", type=int, default=16, help="most tokens of an answer")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=NUM_CLIENTS)
    parser.add_argument("--only-door", action="store_true", help="only rows without a model")
    options = parser.parse_args()
    start = environment()
    peers, missing = choose_peers(options)
    running = [RunningPeer(peer) for peer in peers]
    rows: list[dict[str, Any]] = []
    try:
        for item in running:
            item.start()
            item.suspend()
        seconds, turns = (2.0, 1) if options.quick else (options.seconds, options.turns)
        for turn in range(turns):
            for num_clients in options.clients:
                found = [
                    measure(item, options, num_clients=num_clients, seconds=seconds, turn=turn)
                    for item in running
                ]
                rows += [row for row in found if row]
    finally:
        for item in running:
            item.stop()
    end = [round(value, 2) for value in os.getloadavg()]
    report(
        options,
        environment={
            **start,
            "load_average_at_end": end,
            "missing": missing,
            "bundle": read_bundle(options.bundle),
        },
        rows=rows,
        ratios=compare(rows),
        labels=("server", "model", "clients"),
    )
    print(f"load after {end}; missing: {', '.join(missing) or 'nothing'}")


def read_bundle(bundle: Path) -> dict[str, Any]:
    """What the answering model is."""
    content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    return {name: content[name] for name in ("runtime", "format", "parameters")}


def choose_peers(options: argparse.Namespace) -> tuple[list[Peer], list[str]]:
    """The servers that can be started, and the names of the others."""
    here, model = Path(sys.executable), options.bundle.name
    peers, missing = [own_without_model(options.bundle)], []
    before = options.before.resolve() if options.before else None
    if before:
        peers.append(own_without_model(options.bundle, root=before))
    others = options.peers or here
    if has_module(others, "litserve"):
        peers.append(litserve(others, None, model="none", num_tokens=options.tokens))
    else:
        missing.append("LitServe")
    if options.only_door:
        return peers, missing
    peers.append(own_server(options.bundle, model=model))
    if before:
        peers.append(own_server(options.bundle, model=model, root=before))
    if "LitServe" not in missing:
        peers.append(litserve(others, options.bundle, model=model, num_tokens=options.tokens))
    if options.gguf and has_module(here, "xllamacpp"):
        peers.append(llama_cpp(here, options.gguf, model=model))
    else:
        missing.append("llama.cpp")
    if options.checkpoint and has_module(here, "transformers"):
        peers.append(transformers_serve(here, options.checkpoint, model=model))
    else:
        missing.append("transformers serve")
    return peers, missing


def has_module(python: Path, name: str) -> bool:
    """Whether that Python has it."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
    return subprocess.run([str(python), "-c", code], check=False).returncode == 0


def write_bodies(options: argparse.Namespace, model: str) -> list[str]:
    """The requests."""
    subjects, asked = (text.split() for text in QUESTIONS[options.language])
    space = " " if options.language == "en" else ""
    return [
        json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": subject + space + what}],
                "max_tokens": options.tokens,
                "temperature": 0,
            },
            ensure_ascii=False,
        )
        for what in asked
        for subject in subjects
    ]


def measure(
    item: RunningPeer, options: argparse.Namespace, *, num_clients: int, seconds: float, turn: int
) -> dict[str, Any]:
    """What one server did for so many clients; nothing where it answered none of them."""
    item.resume()
    try:
        bodies = write_bodies(options, item.peer.model_field)
        settings: dict[str, Any] = {"num_clients": num_clients}
        run_job(item.job(bodies, **settings, seconds=WARM_SECONDS))
        before = item.cpu_seconds()
        found = run_job(item.job(bodies, **settings, seconds=seconds))
        time.sleep(0.3)  # what is written behind the answers, such as the journal, counts too
        after = item.cpu_seconds()
        memory = item.memory_bytes()
    finally:
        item.suspend()
    answered = [outcome for outcome in found.outcomes if outcome.status == 200]
    if not answered:
        others = sorted({outcome.status for outcome in found.outcomes})
        print(f"{item.peer.name}, {num_clients} clients: no answer, statuses {others}; left out")
        return {}
    count = len(answered)
    p50, p95, p99 = np.quantile([o.seconds for o in answered], [0.5, 0.95, 0.99])
    return {
        "server": item.peer.name,
        "model": item.peer.model,
        "clients": num_clients,
        "turn": turn,
        "answers": len(answered),
        "others": len(found.outcomes) - len(answered) + found.num_unfinished,
        "cpu_ms": round((after[0] - before[0]) / count * 1e3, 3),
        "first_process_ms": round((after[1] - before[1]) / count * 1e3, 3),
        "client_cpu_ms": round(found.client_cpu_seconds / count * 1e3, 3),
        "p50_ms": round(float(p50) * 1e3, 2),
        "p95_ms": round(float(p95) * 1e3, 2),
        "p99_ms": round(float(p99) * 1e3, 2),
        "answers_per_second": round(len(answered) / max(found.wall_seconds, 1e-9), 1),
        "tokens_per_second": round(
            sum(o.num_tokens for o in answered) / max(found.wall_seconds, 1e-9), 1
        ),
        "memory_mb": round(memory / 1e6, 1),
    }


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Ours beside each other server: above one, ours is better; and 64 clients beside one."""
    middle = {
        (row["server"], row["model"], row["clients"]): row
        for row in medians(rows, labels=("server", "model", "clients"))
    }
    found = {}
    for (server, model, clients), row in middle.items():
        ours = middle.get(("limbeck", model, clients))
        if ours is None:
            continue
        if server.startswith("limbeck"):
            one = middle.get((server, model, 1))
            if clients == 64 and one is not None and one["tokens_per_second"]:
                name = f"{model}: tokens a second, 64 clients by one, {server}"
                found[name] = row["tokens_per_second"] / one["tokens_per_second"]
        if server == "limbeck":
            continue
        place = f"{model}, {clients} clients: {server} by ours,"
        for name in ("cpu_ms", "p50_ms", "p99_ms"):
            if ours[name]:
                found[f"{place} {name}"] = row[name] / ours[name]
        if row["tokens_per_second"]:
            name = f"{model}, {clients} clients: ours by {server}, tokens_per_second"
            found[name] = ours["tokens_per_second"] / row["tokens_per_second"]
    return {name: round(value, 3) for name, value in found.items() if np.isfinite(value)}


if __name__ == "__main__":
    main()
