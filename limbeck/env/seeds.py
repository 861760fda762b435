"""Seeds that depend on several numbers, such as the run's seed and the step."""


def mix_seeds(*numbers: int, num_bits: int = 63) -> int:
    """A seed of so many bits that is a function of all the numbers; equal in every process."""
    return hash(numbers) % 2**num_bits
