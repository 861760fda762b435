"""Mixed seeds: the same in every process and version, and of the bits that are allowed."""

from itertools import product

from limbeck.env.seeds import mix_seeds


def test_a_mixed_seed_never_changes():
    assert mix_seeds(0, 0) == 765232833172254823
    assert mix_seeds(3, 7, num_bits=31) == mix_seeds(3, 7, num_bits=63) % 2**31


def test_every_number_counts():
    assert len({mix_seeds(*numbers) for numbers in product((-1, 0, 1), (0, 1), (0, 1))}) == 12
