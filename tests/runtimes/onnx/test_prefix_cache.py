"""What was read before is not read again, and the answers are the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.runtimes import open_runtime
from limbeck.runtimes.onnx.prefix_cache import LEAST_SHARED_TOKENS, PrefixCache
from limbeck.runtimes.onnx.runtime import OnnxSession
from tests.support.tiny_checkpoints import make_checkpoint

LONG = [5 + (7 * place) % 8 for place in range(LEAST_SHARED_TOKENS + 8)]
"""A first turn, or instructions that stand before every question."""


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(folder / "checkpoint", request.param)
    runtime = open_runtime("onnx")
    runtime.write(folder / "checkpoint", folder / "bundle")
    return runtime.open_model(folder / "bundle", num_threads=1)


def serve(session, prompts, *, num_tokens=3, num_copies=1):
    """Logits after the prompts and after each of some tokens; then the rows leave."""
    admitted = session.admit(prompts, num_copies=num_copies)
    found = [admitted.logits]
    for _ in range(num_tokens):
        found.append(session.step([6] * len(session.slots)))
    session.evict(session.slots)
    return np.array(found)


def count_read(session, monkeypatch):
    """The tokens of each time that prompts are read."""
    read, run = [], session._graph.run

    def count(ids, **settings):
        read.append(ids.size)
        return run(ids, **settings)

    monkeypatch.setattr(session._graph, "run", count)
    return read


def test_a_conversation_goes_on_where_it_was(model, monkeypatch):
    turns = [LONG, [*LONG, 6, 6, 6, 9, 8, 7], [*LONG, 6, 6, 6, 9, 8, 7, 6, 6, 6, 5]]
    session = model.open_session(num_slots=2, max_prefix_bytes=2**20)
    read = count_read(session, monkeypatch)
    found = [serve(session, [turn]) for turn in turns]
    assert read == [len(LONG), 3, 1]  # the first turn, then what is new
    monkeypatch.undo()
    for turn, logits in zip(turns, found, strict=True):
        alone = serve(model.open_session(num_slots=1), [turn])
        assert np.abs(logits - alone).max() < 1e-5 * np.abs(alone).max()


def test_prompts_with_and_without_a_known_beginning_join_at_once(model):
    session = model.open_session(num_slots=8, max_prefix_bytes=2**20)
    serve(session, [LONG])
    prompts = [[*LONG, 7, 7], [9, 9, 5], [*LONG[:-4], 8], LONG]
    found = serve(session, prompts, num_copies=2)
    expected = serve(model.open_session(num_slots=8), prompts, num_copies=2)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_nothing_is_kept_unless_it_is_wanted(model, monkeypatch):
    session = model.open_session(num_slots=1)
    read = count_read(session, monkeypatch)
    serve(session, [LONG])
    serve(session, [LONG])
    assert read == [len(LONG)] * 2
    assert isinstance(session, OnnxSession)


def make_cache(num_tokens):
    return [np.zeros((1, 1, num_tokens, 2), np.float32)] * 2


@given(
    rows=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=60), min_size=1, max_size=12),
    max_bytes=st.integers(0, 3000),
)
def test_it_never_grows_past_its_bound_and_never_finds_what_differs(rows, max_bytes):
    cache = PrefixCache(max_bytes=max_bytes)
    for row in rows:
        found = cache.find(row)
        if found is not None:
            assert LEAST_SHARED_TOKENS <= found.num_tokens < len(row)
            assert all(item.shape[2] == found.num_tokens for item in found.cache)
            earlier = rows[: rows.index(row) + 1]
            assert any(other[: found.num_tokens] == row[: found.num_tokens] for other in earlier)
        cache.put(row, make_cache(len(row)))
        assert 0 <= cache.num_bytes <= max_bytes


def test_what_was_not_met_for_longest_is_forgotten():
    size = make_cache(40)[0].nbytes * 2
    cache = PrefixCache(max_bytes=2 * size)
    first, second, third = ([number] * 40 for number in (1, 2, 3))
    cache.put(first, make_cache(40))
    cache.put(second, make_cache(40))
    assert cache.find([*first, 9]).num_tokens == 40
    cache.put(third, make_cache(40))
    assert cache.find([*second, 9]) is None
    assert cache.find([*first, 9]) and cache.find([*third, 9])


def test_what_is_kept_is_a_copy():
    """The session's own arrays go on changing."""
    cache, arrays = PrefixCache(max_bytes=2**20), make_cache(40)
    cache.put([1] * 40, arrays)
    arrays[0][:] = 5
    assert not cache.find([1] * 41).cache[0].any()


def test_what_one_asked_is_read_again_for_another():
    """Else the time, and the count of known tokens, would tell what others ask."""
    cache = PrefixCache(max_bytes=2**20)
    cache.put([1] * 40, make_cache(40), owner="ward 7")
    assert cache.find([1] * 41, owner="ward 7").num_tokens == 40
    assert cache.find([1] * 41, owner="ward 8") is None and cache.find([1] * 41) is None
