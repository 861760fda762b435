"""How far an ONNX bundle's predictions lie from those of the model that it was made from."""

import numpy as np

from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.parity import compare


def compare_bundle(folder, *, reference):
    """Both on three prompts, the longest of several blocks."""
    candidate = OnnxRuntime().open_model(folder, num_threads=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 200, size=length).tolist() for length in (3, 17, 40)]
    return compare(reference, candidate, prompts=prompts)
