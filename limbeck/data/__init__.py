"""From raw files and facts to a corpus: reading, cleaning, filtering, splitting, rendering."""

from limbeck.contracts.config import Table

SOURCES: Table = {
    "jsonl": "limbeck.data.readers.jsonl:Config",
    "csv": "limbeck.data.readers.csv:Config",
    "parquet": "limbeck.data.readers.parquet:Config",
    "hub": "limbeck.data.readers.hub:Config",
    "triples": "limbeck.data.readers.triples:Config",
    "knowledge": "limbeck.data.readers.pack_facts:Config",
    "images": "limbeck.data.readers.image_archive:Config",
    "labelled": "limbeck.data.readers.classification:Config",
}
"""Where records come from: each a Config whose `read` yields them."""

TARGETS: Table = {
    "plain": "limbeck.distillation.signals.top_k_float:Plain",
    "top": "limbeck.distillation.signals.top_k_packed:TopTokens",
    "sampled": "limbeck.distillation.signals.importance_sampled:SampledTokens",
}
"""How `record` keeps what a teacher says: each a Codec."""
