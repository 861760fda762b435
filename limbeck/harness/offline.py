"""No network while tasks load and run: what a task needs is on this machine, or is refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets.config
import huggingface_hub.constants

VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


@contextmanager
def offline() -> Iterator[None]:
    """Let no Hugging Face library call anything, in this process or in one that it starts."""
    # The variables are read when the libraries are imported, which they are by now.
    before = {name: os.environ.get(name) for name in VARIABLES}
    hub, data = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = hub
        datasets.config.HF_HUB_OFFLINE = data
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
