"""From records to batches: chat template, tokens, packing, preference pairs, images."""
