"""From a recipe to artifacts: check the wiring, order the stages, run each or reuse it by hash."""

from limbeck.pipeline.check import Entry, check
from limbeck.pipeline.lineage import LineageEntry, lineage
from limbeck.pipeline.run import open_external, run, versions

__all__ = ["Entry", "LineageEntry", "check", "lineage", "open_external", "run", "versions"]
