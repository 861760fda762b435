"""Batches: cut by length with little padding, never past their memory, always whole."""

import itertools

import numpy as np
import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.data.loading.batches import Batches, find_split_points
from limbeck.data.loading.config import BatchingConfig


def padded(lengths, cuts):
    return sum(len(part) * part[-1] for part in np.split(lengths, cuts))


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_no_other_cut_pads_less(num_parts):
    generator = np.random.default_rng(0)
    for _ in range(20):
        lengths = np.sort(generator.integers(1, 60, size=9))
        most = 9 * int(lengths[-1])
        cuts = find_split_points(lengths, num_parts=num_parts, max_padded_tokens=most)
        assert len(cuts) == num_parts - 1
        others = itertools.combinations(range(1, 9), num_parts - 1)
        assert padded(lengths, cuts) == min(padded(lengths, list(other)) for other in others)


def test_parts_stay_within_the_memory_of_even_parts_and_lose_nothing():
    generator = np.random.default_rng(1)
    for size in (4, 64, 700):
        lengths = np.sort(generator.geometric(0.05, size=size))
        most = -(-size // 4) * int(lengths[-1])
        cuts = find_split_points(lengths, num_parts=4, max_padded_tokens=most)
        parts = np.split(lengths, cuts)
        assert len(parts) == 4
        assert all(len(part) and len(part) * part[-1] <= most for part in parts)
        assert np.array_equal(np.concatenate(parts), lengths)
        assert padded(lengths, cuts) <= padded(lengths, [size // 4, size // 2, 3 * size // 4])


def test_one_long_record_gets_a_part_of_its_own():
    lengths = np.array([20] * 63 + [90])
    assert find_split_points(lengths, num_parts=2, max_padded_tokens=32 * 90) == [63]


def test_fewer_records_than_parts():
    assert find_split_points(np.array([3, 5]), num_parts=4, max_padded_tokens=5) == [1]


def test_records_of_one_length_are_cut_evenly_whatever_their_number():
    lengths = np.full(768, 50)
    cuts = find_split_points(lengths, num_parts=3, max_padded_tokens=256 * 50)
    assert cuts == [256, 512]


def test_what_is_shown_fits_a_number_of_tokens(corpus, tokenizer):
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig())
    many = batches.take(8, max_tokens=10**9)
    assert len(many.record_ids) == 8
    lengths = many.tokens.sum(dim=1).cumsum(dim=0)
    few = batches.take(8, max_tokens=int(lengths[4]))
    assert few.record_ids.tolist() == many.record_ids[:5].tolist()
    assert batches.take(8, max_tokens=0).record_ids.tolist() == many.record_ids[:1].tolist()


def test_records_that_lose_their_end_are_counted_and_warned_of(corpus, tokenizer, caplog):
    whole = Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig())
    assert whole.records.num_truncated == 0
    assert not caplog.records
    lengths = np.sort(whole.records.split.lengths[whole.records.ids])
    config = BatchingConfig(max_length=int(lengths[-1]) - 1)
    cut = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    assert cut.records.num_truncated == int((lengths == lengths[-1]).sum())
    assert (
        f"{cut.records.num_truncated} of {len(cut.records)} selected records are longer than"
        in caplog.text
    )
    with pytest.raises(DataError, match=r"batching\.max_length 4 .*raise max_length"):
        Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig(max_length=4))
    held_out = Batches(
        Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig(max_length=4), split="validation"
    )
    assert held_out.records.num_truncated == len(held_out.records)
