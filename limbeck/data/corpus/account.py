"""What became of every source's records: as data for the card, as a table, and as a refusal.

Left out: how records are counted; `limbeck.data.filters.record_log` does.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Change, Drop
from limbeck.data.filters.record_log import RecordLog, SourceCounts

EXAMPLE_CHARS = 30
NUM_REASONS = 3
"""Most frequent reasons that a refusal names."""


def describe_sources(log: RecordLog) -> JsonObject:
    """By source: records read, kept, dropped and changed by reason, with examples; its notes."""
    return {
        name: count_source(counts)
        | {
            "dropped_examples": {
                key: [{"place": drop.place, "text": _storable(drop.detail)} for drop in drops]
                for key, drops in counts.drops.items()
            },
            "changed_examples": {
                key: [
                    {
                        "place": item.place,
                        "before": _storable(item.before),
                        "after": _storable(item.after),
                    }
                    for item in changes
                ]
                for key, changes in counts.changes.items()
            },
            **counts.notes,
        }
        for name, counts in log.sources.items()
    }


def count_source(counts: SourceCounts) -> JsonObject:
    """The records of one source: read, kept, dropped and changed by reason."""
    return {
        "read": counts.read,
        "kept": counts.kept,
        "dropped": dict(counts.dropped.most_common()),
        "changed": dict(counts.changed.most_common()),
    }


def draw_sources(log: RecordLog) -> Table:
    """Each source's records by what became of them, with the first ones of each reason."""
    table = Table("source", "records", "", "examples", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for column in table.columns[:3]:
        column.no_wrap = True  # only long examples give way on a narrow screen
    for name, counts in log.sources.items():
        table.add_row(Text(name, "bold"), f"{counts.read:,}", "read")
        table.add_row("", f"{counts.kept:,}", "kept")
        for verb, by_reason, examples in (
            ("dropped", counts.dropped, {k: map(_show_drop, v) for k, v in counts.drops.items()}),
            (
                "changed",
                counts.changed,
                {k: map(_show_change, v) for k, v in counts.changes.items()},
            ),
        ):
            for key, count in by_reason.most_common():
                what = f"{verb}: {log.reasons[key].en}"
                table.add_row("", f"{count:,}", Text(what), Text("\n".join(examples.get(key, ()))))
    return table


def check_dropped(log: RecordLog, *, max_ratios: Mapping[str, float]) -> None:
    """Refuses a source that lost too many of its records, where each may lose a share of them.

    Raises:
        DataError: with the source, the share, the most frequent reasons, and what to set.
    """
    for name, max_ratio in max_ratios.items():
        ratio = log.fault_ratio(name)
        if ratio <= max_ratio:
            continue
        faults = log.faults(name)
        reasons = "; ".join(_explain_reasons(log, name, faults))
        enough = min(1.0, -(-ratio * 1000 // 10) / 100)
        raise DataError(
            f"source {name!r}: {faults.total():,} of its {log.source(name).read:,} records "
            f"({ratio:.1%}) were dropped, more than the {max_ratio:.1%} that may be: {reasons}. "
            f"Mend the file, or the recipe's columns and filters; or accept it with "
            f"`max_dropped_ratio: {enough:g}` on the source. All of them: {log.path}"
        )


def _explain_reasons(log: RecordLog, name: str, faults: Counter[str]) -> Iterator[str]:
    for key, count in faults.most_common(NUM_REASONS):
        examples = ", ".join(map(_show_drop, log.source(name).drops[key]))
        yield f"{count:,} {log.reasons[key].en} [{key}] ({examples})"


def _show_drop(drop: Drop) -> str:
    return f"{Path(drop.place).name}: {_visible(drop.detail)}"


def _show_change(change: Change) -> str:
    place, before, after = change.place, _visible(change.before), _visible(change.after)
    return f"{Path(place).name}: {before} -> {after}"


def _storable(text: str) -> str:
    """The text with escapes for halves of characters, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _visible(text: str) -> str:
    """A short text on one line, with escapes for what cannot be seen."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text[:EXAMPLE_CHARS]
    )
    return shown + "…" * (len(text) > EXAMPLE_CHARS)
