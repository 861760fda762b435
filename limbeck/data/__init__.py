"""From raw files and facts to a corpus: reading, cleaning, filtering, splitting, rendering."""

from limbeck.contracts.config import Table

SOURCES: Table = {
    "jsonl": "limbeck.data.sources.jsonl:Config",
    "csv": "limbeck.data.sources.csv:Config",
    "parquet": "limbeck.data.sources.parquet:Config",
    "hub": "limbeck.data.sources.hub:Config",
    "triples": "limbeck.data.sources.triples:Config",
    "knowledge": "limbeck.data.sources.knowledge:Config",
    "images": "limbeck.data.sources.images:Config",
    "labelled": "limbeck.data.sources.labelled:Config",
}
"""Where records come from: each a Config whose `read` yields them."""

TARGETS: Table = {
    "plain": "limbeck.data.signals.plain:Plain",
    "top": "limbeck.data.signals.top:TopTokens",
    "sampled": "limbeck.data.signals.sampled:SampledTokens",
}
"""How `record` keeps what a teacher says: each a Codec."""
