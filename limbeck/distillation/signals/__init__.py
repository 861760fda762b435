"""Recorded signals: what a teacher returned, in shards on disk, and the codecs that store it."""
