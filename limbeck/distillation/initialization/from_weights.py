"""Initialises a fresh student from its teacher: attention, embeddings and norms are copied.

Whatever has the same name and shape in both is copied; of a deeper teacher, layers evenly spread
over its depth. Left out: feed-forward layers of other widths, and mixing experts into them.
"""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, load_tokenizer
from limbeck.models.structure import find_layers, match_depth


def open_source(folder: Path, *, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The checkpoint whose weights a student with this tokenizer takes over.

    Raises:
        CheckpointError: its embeddings belong to another tokenizer.
    """
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError(
            f"{folder}: its tokenizer is not the corpus's, so its embeddings mean other tokens; "
            "prepare the corpus with that tokenizer, or leave `initialize_from` out"
        )
    return load_model(folder, dtype="auto")


@torch.no_grad()
def copy_matching_weights(student: PreTrainedModel, *, teacher: PreTrainedModel) -> float:
    """The share of the student's parameters that were copied from the teacher, in place.

    Student layer i of n gets layer ceil(i m / n) of the teacher's m, counted from 1, so the last
    gets the last (evenly spaced layers, as in DistilBERT: Sanh et al. 2019, sec. 3,
    arXiv:1910.01108).

    Raises:
        CheckpointError: nothing fits.
    """
    own_prefix, own_layers = find_layers(student)
    prefix, layers = find_layers(teacher)
    sources = dict(teacher.named_parameters())
    copied = 0
    for name, parameter in student.named_parameters():
        source = name
        if name.startswith(f"{own_prefix}."):
            index, rest = name.removeprefix(f"{own_prefix}.").split(".", 1)
            depth = match_depth(int(index) + 1, num_layers=len(own_layers), num_sources=len(layers))
            source = f"{prefix}.{depth - 1}.{rest}"
        found = sources.get(source)
        if found is not None and found.shape == parameter.shape:
            parameter.copy_(found)
            copied += parameter.numel()
    if not copied:
        raise CheckpointError(
            f"nothing of {type(teacher).__name__} (hidden {_width(teacher)}) fits "
            f"{type(student).__name__} (hidden {_width(student)}): give the student the "
            "teacher's `hidden_size` and heads, or leave `initialize_from` out"
        )
    return copied / sum(parameter.numel() for parameter in student.parameters())


def _width(model: PreTrainedModel) -> int:
    return model.config.get_text_config().hidden_size
