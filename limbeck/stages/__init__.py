"""Stages: each module reads artifacts, calls techniques, and writes one artifact."""
