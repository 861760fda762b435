"""Every exchange and its feedback: kept in order, hash-chained, and never in the way.

`writer` takes, `spool` holds what waits, `store` writes and `schema` says what, `audit` checks,
`retention` forgets, `queries` reads and `export` hands on.
"""
