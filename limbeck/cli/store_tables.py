"""What the commands on the artifact store and the model registry print."""

import dataclasses
import getpass
from datetime import datetime, time, timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from limbeck.cli.console import print_json
from limbeck.contracts.errors import ArtifactError
from limbeck.pipeline.garbage import DAY_SECONDS, collect, list_store
from limbeck.pipeline.model_registry import HistoryEvent, ModelRegistry, answering, roles
from limbeck.pipeline.store import Store


def print_listing(runs: Path, *, keep_days: float, as_json: bool) -> None:
    """Every artifact of the store."""
    found = list_store(Store(runs), keep_days=keep_days)
    if as_json:
        print_json([dataclasses.asdict(item) for item in found])
        return
    table = Table("key", "names", "kind", "size", "age", "needed", box=None, header_style="bold")
    for item in found:
        table.add_row(
            item.folder,
            ", ".join((*item.names, *(f"model:{name}" for name in item.models))),
            item.kind,
            f"{item.size_bytes / 2**20:,.1f} MiB",
            f"{item.age_seconds / DAY_SECONDS:,.1f} days",
            "yes" if item.is_referenced else "no",
        )
    Console().print(table)


def print_collected(runs: Path, *, keep_days: float, dry_run: bool, as_json: bool) -> None:
    """Remove what nothing needs, and what was freed."""
    found = collect(Store(runs), keep_days=keep_days, dry_run=dry_run)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    for item in found.removed:
        typer.echo(f"{item.folder}: {item.kind}, {item.size_bytes:,} bytes")
    for key in found.half_made:
        typer.echo(f"{key[:12]}: half made")
    verb = "would free" if dry_run else "freed"
    typer.echo(f"{verb} {found.freed_bytes:,} bytes")
    if found.kept_young:
        typer.echo(
            f"{found.kept_young} more that nothing needs were in use within {keep_days:g} days, or "
            "are in use; --keep-days 0 removes them too"
        )


def print_damage(runs: Path, *, as_json: bool) -> bool:
    """Hash every file of the store again; whether all are as their manifests record."""
    store = Store(runs)
    found = {item.path.name: store.verify(item) for item in store.artifacts()}
    if as_json:
        print_json(found)
    else:
        for name, damage in found.items():
            typer.echo(f"{name}: {'damaged: ' + ', '.join(damage) if damage else 'whole'}")
    return not any(found.values())


def open_registry(runs: Path) -> ModelRegistry:
    """The served names of a runs folder."""
    return ModelRegistry(Store(runs))


def print_event(event: HistoryEvent, name: str, *, as_json: bool) -> None:
    """One change of a served name."""
    if as_json:
        print_json({"name": name} | event.model_dump(mode="json"))
    else:
        typer.echo(f"{name}: {_line(event)}")


def print_history(runs: Path, name: str, *, at: str, as_json: bool) -> None:
    """What happened to a served name, or what answered at a time."""
    events = ModelRegistry(Store(runs)).history(name)
    held = {event.artifact: role for role, event in roles(events).items()}
    if at:
        start, end = _span(at)
        events = answering(events, start=start, end=end)
    if as_json:
        print_json(
            [{**item.model_dump(mode="json"), "role": held.get(item.artifact)} for item in events]
        )
        return
    for item in events:
        role = held.get(item.artifact)
        typer.echo(_line(item) + (f" [{role} now]" if role else ""))
    if not events:
        typer.echo(f"{name}: nothing answered then")


def _span(text: str) -> tuple[datetime, datetime]:
    """A day, or a moment, in local time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArtifactError(f"--at {text!r}: expected 2026-11-24 or 2026-11-24T15:30") from None
    if len(text) > len("2026-11-24"):
        return moment.astimezone(), moment.astimezone()
    day = datetime.combine(moment.date(), time())
    return day.astimezone(), (day + timedelta(days=1)).astimezone()


def _line(event: HistoryEvent) -> str:
    by = f" by {event.by}" if event.by else ""
    report = f", report {event.report} {event.report_hash[:12]}" if event.report else ""
    moment = event.time.astimezone().isoformat(" ", "seconds")
    return f"{moment} {event.action} {event.artifact}{by}{report}"


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
