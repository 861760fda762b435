"""Where records come from: one module a kind, each a `Config` with `read`.

A source yields records, evaluation questions, notes for the data card, and a drop with its place
for everything it could not use.
"""
