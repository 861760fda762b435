"""Rows in buffers: whatever joins, grows and leaves, each row holds what it held."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtimes.onnx.cache import RowCaches

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 40), st.integers(1, 3)),
        st.tuples(st.just("keep"), st.integers(0, 2**6 - 1), st.just(0)),
        st.tuples(st.just("extend"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@given(steps=STEPS)
def test_rows_hold_what_they_held(steps):
    caches, expected = RowCaches(num_caches=2, num_heads=1, head_dim=2), []
    drawn = np.random.default_rng(0)
    for what, number, num_copies in steps:
        if what == "add":
            new = [drawn.random((2, 1, number, 2), np.float32) for _ in range(2)]
            caches.add(new, num_copies=num_copies)
            expected += [[x[row] for x in new] for row in (0, 1) for _ in range(num_copies)]
        elif what == "keep":
            rows = [row for row in range(len(expected)) if number >> (row % 6) & 1]
            caches.keep(rows)
            expected = [expected[row] for row in rows]
        elif expected:
            lengths = [row[0].shape[1] for row in expected]
            caches.reserve(num_tokens=max(lengths) + 1)
            for index, view in enumerate(caches.views()):  # as a graph does
                for row, (place, length) in enumerate(zip(caches.places, lengths, strict=True)):
                    view[place, :, length] = row
                    added = np.full((1, 1, 2), row, np.float32)
                    expected[row][index] = np.append(expected[row][index], added, axis=1)
        assert sorted(caches.places) == list(range(len(expected)))
        for row, held in enumerate(expected):
            found = caches.row(row, length=held[0].shape[1])
            assert all(np.array_equal(x[0], y) for x, y in zip(found, held, strict=True))
