"""Stored facts of a domain that answer a question exactly, or not at all; no model."""

from limbeck.serving.facts.find import FoundFact, find_fact
from limbeck.serving.facts.store import NO_FACTS, FactStore, make_store, read_store

__all__ = ["NO_FACTS", "FactStore", "FoundFact", "find_fact", "make_store", "read_store"]
