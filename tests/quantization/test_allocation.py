"""Bytes go to the layers that gain most by them."""

import itertools
import random

import pytest

from limbeck.quantization.allocation import Option, allocate


def test_the_next_byte_goes_where_it_gains_most():
    options = {
        "small": [Option(10, 1.0), Option(20, 0.5)],  # 0.05 a byte
        "large": [Option(100, 3.0), Option(200, 0.0)],  # 0.03 a byte
        "exact": [Option(10, 0.0), Option(20, 0.0)],
    }
    assert allocate(options, max_bytes=130) == {"small": 1, "large": 0, "exact": 0}
    assert allocate(options, max_bytes=229) == {"small": 1, "large": 0, "exact": 0}
    assert allocate(options, max_bytes=230) == {"small": 1, "large": 1, "exact": 0}
    assert allocate(options, max_bytes=0) == {"small": 0, "large": 0, "exact": 0}


def test_an_option_that_is_no_better_than_its_neighbours_together_is_passed_over():
    options = {"layer": [Option(10, 1.0), Option(20, 0.9), Option(30, 0.0)]}
    assert allocate(options, max_bytes=30) == {"layer": 2}
    assert allocate(options, max_bytes=29) == {"layer": 0}


@pytest.mark.parametrize("seed", range(5))
def test_it_is_one_step_of_one_layer_at_most_away_from_the_best(seed):
    rng = random.Random(seed)
    options = {
        str(index): [
            Option(num_bytes, rng.random() / num_bytes) for num_bytes in (10, 20 + index, 40)
        ]
        for index in range(6)
    }
    max_bytes = 150
    best = min(
        sum(options[str(index)][place].cost for index, place in enumerate(places))
        for places in itertools.product(range(3), repeat=6)
        if sum(options[str(i)][place].num_bytes for i, place in enumerate(places)) <= max_bytes
    )
    chosen = allocate(options, max_bytes=max_bytes)
    found = sum(options[name][place].cost for name, place in chosen.items())
    step = max(item[0].cost - min(one.cost for one in item) for item in options.values())
    assert sum(options[name][place].num_bytes for name, place in chosen.items()) <= max_bytes
    assert best <= found <= best + step
