"""GGUF bundles held against their checkpoints, on random tokens."""

from pathlib import Path

import numpy as np

from limbeck.contracts.parity import LogitDifference
from limbeck.runtimes.gguf.runtime import GgufRuntime
from limbeck.runtimes.parity import compare
from limbeck.runtimes.transformers import TransformersRuntime

LENGTHS = (3, 15, 40)


def measure(checkpoint: Path, bundle: Path, *, vocab: int = 200) -> LogitDifference:
    """How far llama.cpp's logits lie from the checkpoint's."""
    reference = TransformersRuntime().open_model(checkpoint, num_threads=1)
    found = GgufRuntime().open_model(bundle, num_threads=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, vocab, size=length).tolist() for length in LENGTHS]
    return compare(reference, found, prompts=prompts)
