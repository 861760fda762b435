"""From raw files and facts to a corpus and its batches: readers, filters, packs, loading."""
