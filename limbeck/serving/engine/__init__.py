"""One model in a process of its own, decoding for many requests at once."""
