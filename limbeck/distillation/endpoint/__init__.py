"""A teacher behind an OpenAI-compatible server: asking it, what it said, and learning from that."""
