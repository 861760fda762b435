"""What the service counts, for Prometheus.

Names of what a model server measures are OpenTelemetry's (semantic conventions for generative AI),
as Prometheus writes them; all others begin with `limbeck_`. Every label has a bounded set of
values. Left out: what is read off the service at each scrape (`state_metrics`).
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal, final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from limbeck.serving.journal.writer import Health, JournalState
from limbeck.serving.service import End, Route

ShadowOutcome = Literal["same", "different", "failed", "left out"]
REQUEST_SECONDS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""Bounds that the conventions recommend."""
FAST_TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, *TOKEN_SECONDS)
"""Small models write a token in less than the smallest of them."""
GEN_AI = (
    *("gen_ai_operation_name", "gen_ai_provider_name"),
    *("gen_ai_request_model", "gen_ai_response_model", "role"),
)
"""Labels: what is done and by whom, the model that was asked for, the tier that answered."""
WHO = ("chat", "limbeck")


@dataclass(frozen=True)
class RequestEnd:
    """How a request to a model ended."""

    requested_model: str
    """A tier or `auto`."""
    route: Route | None
    """None where no tier took it."""
    end: End | None
    """Of its first answer."""
    error: str
    """Its name; '' where it was answered."""
    first_seconds: float
    total_seconds: float


@final
class Metrics:
    """Counters and histograms, all of one service."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...]):
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]):
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.requests = counter(
            "limbeck_requests", "Requests by path and status code.", ("path", "code")
        )
        self.rejected = counter(
            "limbeck_rejected", "Requests refused before they were read.", ("why",)
        )
        self.in_flight = Gauge(
            "limbeck_in_flight", "Requests that are being answered.", registry=registry
        )
        self.answers = counter(
            "limbeck_answers",
            "Answers by tier, reason of the route, status, and the model's role.",
            ("tier", "reason", "status", "role"),
        )
        self.tokens = counter(
            "limbeck_tokens", "Tokens read (input) and written (output).", ("tier", "type", "role")
        )
        self.seconds = histogram(
            "gen_ai_server_request_duration_seconds",
            "From the request to the answer's end.",
            (*GEN_AI, "error_type"),
            REQUEST_SECONDS,
        )
        self.first_seconds = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request to the first piece of text that the client gets.",
            GEN_AI,
            FIRST_TOKEN_SECONDS,
        )
        self.token_seconds = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time of a token after the first one.",
            GEN_AI,
            FAST_TOKEN_SECONDS,
        )
        self.queue_seconds = histogram(
            "limbeck_queue_seconds",
            "Time that answered requests waited for a row.",
            ("tier", "role"),
            FIRST_TOKEN_SECONDS,
        )
        self.shadows = counter(
            "limbeck_shadow_answers",
            "Copies of requests that the candidate answered like the champion or not, or did not.",
            ("tier", "outcome"),
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

        # Finding a series by its labels costs more than counting in it.
        self.count_request = cache(self.requests.labels)
        self._count_answer = cache(self.answers.labels)
        self._count_tokens = cache(self.tokens.labels)
        self._time_request = cache(self.seconds.labels)
        self._time_first = cache(self.first_seconds.labels)
        self._time_token = cache(self.token_seconds.labels)
        self._time_queue = cache(self.queue_seconds.labels)

    def observe_end(self, route: Route, end: End) -> None:
        """Takes the end of one of the answers to a request."""
        self._count_answer(route.tier, route.reason, end.status, route.label).inc()
        if not end.choice:  # several answers to one prompt, which is read once
            self._count_tokens(route.tier, "input", route.label).inc(end.num_prompt_tokens)
        self._count_tokens(route.tier, "output", route.label).inc(end.num_tokens)

    def observe_outcome(self, found: RequestEnd) -> None:
        """Takes the end of a request."""
        tier = found.route.tier if found.route else ""
        role = found.route.label if found.route else ""
        labels = (*WHO, found.requested_model, tier, role)
        self._time_request(*labels, found.error).observe(found.total_seconds)
        end = found.end
        if end is None:
            return
        self._time_first(*labels).observe(found.first_seconds or found.total_seconds)
        if tier and end.num_tokens:
            self._time_queue(tier, role).observe(end.queue_seconds)
        if end.num_tokens > 1 and end.decode_seconds:
            seconds = end.decode_seconds / (end.num_tokens - 1)
            self._time_token(*labels).observe(seconds)

    def observe_shadow(self, tier: str, outcome: ShadowOutcome) -> None:
        """Takes what became of a copy."""
        self.shadows.labels(tier, outcome).inc()

    def observe_journal(self, health: Health) -> None:
        """Takes how the journal fares."""
        for state in get_args(JournalState):
            self.journal_state.labels(state).set(health.state == state)
        self.journal_waiting.set(health.waiting_bytes)
        self.journal_dropped.set(health.dropped_rows)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)
