"""Which of a launcher's processes this one is.

`accelerate launch` and `torchrun` describe each process that they start in its environment.
"""

import os


def process_index() -> int:
    """This process's place among all that were launched together; 0 leads."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """Processes launched together, over all machines; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))
