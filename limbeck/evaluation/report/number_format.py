"""How the report's numbers are written for people: the only place where percentages appear."""

from typing import Protocol, runtime_checkable

from limbeck.evaluation.metrics import Interval

MISSING = "–"
Number = int | float
"""Spelt out, because run-time checks do not take an int for a float."""


@runtime_checkable
class Bounded(Protocol):
    """Anything with an interval."""

    @property
    def low(self) -> Number:
        """Its lower end."""
        ...

    @property
    def high(self) -> Number:
        """Its upper end."""
        ...


@runtime_checkable
class ValueBounded(Bounded, Protocol):
    """A figure with its interval."""

    @property
    def value(self) -> Number:
        """The figure."""
        ...


def percent(value: Number | None, *, digits: int = 1) -> str:
    """A ratio as a percentage."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def percent_range(interval: Bounded | None) -> str:
    """An interval of a ratio, as percentages."""
    if interval is None:
        return ""
    return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def score(value: ValueBounded) -> str:
    """A ratio with its interval, as percentages."""
    return f"{percent(value.value)} ({percent_range(value)})"


@runtime_checkable
class DifferenceBounded(Bounded, Protocol):
    """A difference of two shares with its interval."""

    @property
    def difference(self) -> Number:
        """The figure."""
        ...


def points(item: DifferenceBounded) -> str:
    """A difference of shares with its interval, in percentage points."""
    return f"{100 * item.difference:+.1f} ({100 * item.low:+.1f} – {100 * item.high:+.1f})"


def gained(item: ValueBounded) -> str:
    """A difference of shares that has a `value`, in percentage points."""
    return f"{100 * item.value:+.1f} ({100 * item.low:+.1f} – {100 * item.high:+.1f})"


def area(interval: Interval) -> str:
    """An area under a curve with its interval."""
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def nats(interval: ValueBounded) -> str:
    """A log-likelihood with its interval."""
    return f"{interval.value:.3f} ({interval.low:.3f} – {interval.high:.3f})"


def nats_more(interval: ValueBounded) -> str:
    """A difference of two log-likelihoods with its interval."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} – {interval.high:+.3f})"


def times(value: Number | None) -> str:
    """A ratio as a factor."""
    if value is None:
        return MISSING
    return f"{value:.1f}x" if value < 100 else f"{value:,.0f}x"


def times_range(interval: Bounded | None) -> str:
    """An interval of a factor."""
    return "" if interval is None else f"{interval.low:.1f}–{interval.high:.1f}"


def byte_count(value: Number) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def counted(value: Number) -> str:
    """A large number of things, shortened."""
    for unit in ("", " k", " M", " B"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"


def duration(seconds: Number) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
