"""What the service counts, for Prometheus.

Names of what is said of models follow OpenTelemetry's conventions for generative AI, as Prometheus
writes them.
"""

from typing import Literal, final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from limbeck.serving.journal.writer import Health

JournalState = Literal["ok", "spooling", "dropping"]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384)


@final
class Metrics:
    """Counters and histograms, all of one service."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def histogram(name: str, text: str, labels: tuple[str, ...] = (), buckets=SECONDS):
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.requests = Counter(
            "limbeck_requests",
            "Requests by path and status code.",
            ("path", "code"),
            registry=registry,
        )
        self.rejected = Counter(
            "limbeck_rejected",
            "Requests refused before they were read.",
            ("why",),
            registry=registry,
        )
        self.in_flight = Gauge("limbeck_in_flight", "Requests in the house.", registry=registry)
        self.answers = Counter(
            "limbeck_answers",
            "Answers by tier, reason of the route and status.",
            ("tier", "reason", "status"),
            registry=registry,
        )
        self.seconds = histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request to the answer's end.",
            ("tier",),
        )
        self.first_seconds = histogram(
            "gen_ai_server_time_to_first_token_seconds", "To the first piece of text.", ("tier",)
        )
        self.tokens = Counter(
            "gen_ai_client_token_usage",
            "Tokens read and written.",
            ("tier", "type"),
            registry=registry,
        )
        self.running = Gauge(
            "limbeck_running", "Answers being written.", ("tier",), registry=registry
        )
        self.waiting = Gauge(
            "limbeck_waiting", "Requests without a row.", ("tier",), registry=registry
        )
        self.journal_state = Gauge(
            "limbeck_journal_state", "1 at the state it is in.", ("state",), registry=registry
        )
        self.journal_waiting = Gauge(
            "limbeck_journal_waiting_bytes", "Spooled, for the database.", registry=registry
        )
        self.journal_dropped = Gauge(
            "limbeck_journal_dropped_rows", "Lost: neither database nor disk.", registry=registry
        )
        self.up = Gauge(
            "limbeck_tier_up", "1 where the model is ready.", ("tier",), registry=registry
        )
        self.restarts = Gauge(
            "limbeck_worker_restarts",
            "Times that the model's process died.",
            ("tier",),
            registry=registry,
        )

    def see_journal(self, health: Health) -> None:
        """Takes how the journal fares."""
        for state in get_args(JournalState):
            self.journal_state.labels(state).set(health.state == state)
        self.journal_waiting.set(health.waiting_bytes)
        self.journal_dropped.set(health.dropped_rows)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)
