"""From a recipe to artifacts: check the wiring, order the stages, run each or reuse it by key."""

from limbeck.pipeline.check import Entry, check
from limbeck.pipeline.run import open_external, run, versions

__all__ = ["Entry", "check", "open_external", "run", "versions"]
