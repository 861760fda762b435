"""A corpus on disk: its splits, images, tokenizer and card."""
