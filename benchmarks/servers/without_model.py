"""The service with everything but a model: keys, rules, journal, metrics, a process beside it.

That process answers at once with a text that it always has, so that what is left is the cost of the
service itself. It stands in for the model of a bundle, whose rules and policy are in force.

    python benchmarks/servers/without_model.py BUNDLE PORT KEYS JOURNAL [SECONDS [SLOTS]]

With SECONDS, each answer takes so long and SLOTS are answered at once, as by a model of a fixed
speed: what overload does can then be measured on a machine whose own speed changes.
"""

import asyncio
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from limbeck.contracts.answer_policy import Judgement, read_policy
from limbeck.serving.api.app import make_app
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.messages import Event, Finished, Generate, Piece, Ready, Stop
from limbeck.serving.engine.worker import WorkerSettings
from limbeck.serving.journal.open import open_journal
from limbeck.serving.keys import Keys
from limbeck.serving.open import RulesOfTiers
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.server import Server, bind
from limbeck.serving.service import Service, Tier

TEXT = "常见的有头痛、头晕、心悸和耳鸣。"
SURE = Judgement(0.9, 0.5, 1.0, 0.1)
NAME = "model"


def answer_at_once(connection: Connection, settings: WorkerSettings) -> None:
    """What runs in the model's place."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seconds = float(settings.folder.name)
    connection.send([Ready(0, 0, 4096, 1)])
    due: list[tuple[float, Generate]] = []
    try:
        while True:
            wait = max(0.0, due[0][0] - time.monotonic()) if due else None
            while connection.poll(wait):
                for command in connection.recv():
                    if isinstance(command, Stop):
                        return
                    if isinstance(command, Generate):
                        # Of the requests beyond the slots each waits for the one before it.
                        begins = [time.monotonic()]
                        if len(due) >= settings.num_slots:
                            begins.append(due[-settings.num_slots][0])
                        due.append((max(begins) + seconds, command))
                wait = 0.0
            now = time.monotonic()
            events: list[Event] = []
            while due and due[0][0] <= now:
                ended, request = due.pop(0)
                events += _events(request, started=ended - seconds)
            if events:  # one message for all that a step ends, as a model's process sends
                connection.send(events)
    except (EOFError, OSError):
        return


def _events(request: Generate, *, started: float) -> list[Event]:
    num_tokens = len(TEXT)
    end = Finished(request.id, 0, "stop", 12, num_tokens, 0.9, SURE, False, started=started)
    texts = TEXT if request.pieces == "all" else (TEXT,)
    return [*(Piece(request.id, 0, text) for text in texts), end]


def main() -> None:
    """Serve until SIGTERM."""
    bundle, port, keys, journal, *rest = sys.argv[1:]
    seconds, slots = rest[0] if rest else "0", int(rest[1]) if len(rest) > 1 else 64
    config = ServeConfig(tiers=(TierConfig(name=NAME, model=bundle, max_rows=slots),))
    tier = config.tiers[0]
    engine = ProcessEngine(
        WorkerSettings(Path(seconds), slots, 1),
        name=NAME,
        max_waiting=tier.max_waiting,
        max_wait_seconds=tier.max_wait_seconds,
        target=answer_at_once,
    )
    rules = RulesOfTiers(country="")
    service = LiveService(
        [Tier(tier, engine, read_policy(Path(bundle)), "none")],
        compose=lambda tiers: Service(tiers, rules=rules.compile(tiers)),
    )
    kept = open_journal(journal)
    admission = make_app(service, config=config, keys=Keys(Path(keys)), journal=kept)
    server = Server(admission, drain_seconds=config.limits.drain_seconds)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve([bind("127.0.0.1", int(port))]))
    if kept is not None:
        kept.close()


if __name__ == "__main__":
    main()
