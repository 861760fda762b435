"""Initialises a fresh student from its teacher: attention, embeddings and norms are copied.

Whatever plays the same part and has the same shape in both is copied; of a deeper teacher, layers
evenly spread over its depth. What makes weights mean the same goes with them (`conventions.py`),
and what still differs is said. Left out: feed-forward layers of other widths, and mixing experts
into them.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.initialization.conventions import (
    COMPARED,
    MAX_RELATIVE_ERROR,
    compare_rotary,
    compare_windows,
    embedding_scale,
    find_final_norm,
    source_name,
    take_logit_scale,
    take_norm,
    take_residual_scale,
    take_rotary,
)
from limbeck.distillation.known_inputs import describe_foreign_source
from limbeck.models.checkpoints import load_model
from limbeck.models.norms import is_norm
from limbeck.models.projections import count_shares, read_projections
from limbeck.models.structure import find_layers, find_parameter, find_submodule, match_depth
from limbeck.models.tokenizers import load_tokenizer

logger = logging.getLogger(__name__)


def open_source(folder: Path, *, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The checkpoint whose weights a student with this tokenizer takes over.

    Raises:
        CheckpointError: its embeddings belong to another tokenizer.
    """
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError(describe_foreign_source(folder))
    return load_model(folder, dtype="auto")


@dataclass(frozen=True)
class Inherited:
    """What a student took over, and what of it means something else in the student."""

    ratio: float
    """Share of the student's parameters that were copied."""
    differences: tuple[str, ...] = ()

    def metrics(self) -> dict[str, object]:
        """For the manifest; the differences are logged as well."""
        for difference in self.differences:
            logger.warning("initialize_from: %s", difference)
        found: dict[str, object] = {"inherited_ratio": self.ratio}
        return found | ({"inherited_differences": self.differences} if self.differences else {})


@torch.no_grad()
def copy_matching_weights(
    student: PreTrainedModel, *, teacher: PreTrainedModel, keep_rotary: bool = False
) -> Inherited:
    """Copies the teacher's parameters that fit, with what makes them mean the same.

    Student layer i of n gets layer ceil(i m / n) of the teacher's m, counted from 1, so the last
    gets the last (evenly spread layers, as in DistilBERT: Sanh et al. 2019, sec. 3,
    arXiv:1910.01108). The student gets the teacher's rotary embedding unless `keep_rotary`, and its
    scales of embeddings, blocks and logits. A norm of another convention is converted, or stays
    fresh.

    Raises:
        CheckpointError: nothing fits.
    """
    copied: set[Tensor] = set()
    fresh_norms: list[str] = []
    for fitting in _find_fitting(student, teacher):
        own = fitting.module.get_parameter(fitting.name)
        if fitting.norm is None:
            own.copy_(fitting.value)
        elif not take_norm(fitting.module, fitting.norm):
            fresh_norms.append(fitting.owner)
            continue
        copied.add(own)
    if not copied:
        raise _nothing_fits(student, teacher)
    depths = _match_depths(student, teacher)
    compare = compare_rotary if keep_rotary else take_rotary
    differences = [
        compare(student, teacher=teacher),
        _match_embeddings(student, teacher=teacher),
        f"norms of another kind stay fresh: {', '.join(fresh_norms[:4])} and so on"
        if fresh_norms
        else None,
        _compare_layers(student, teacher, depths=depths, copied=copied),
        compare_windows(student, teacher=teacher),
        take_logit_scale(student, teacher=teacher) if _takes_head(student, copied) else None,
    ]
    take_residual_scale(student, teacher=teacher, copied=copied)
    total = sum(parameter.numel() for parameter in student.parameters())
    ratio = sum(parameter.numel() for parameter in copied) / total
    return Inherited(ratio, tuple(item for item in differences if item is not None))


def check_fit(student: PreTrainedModel, *, teacher: PreTrainedModel) -> None:
    """Refuse a teacher of which a student can take nothing; shapes decide, so no weights are read.

    Norms count for nothing: whether one can be taken depends on what it computes.

    Raises:
        CheckpointError: nothing fits.
    """
    if all(fitting.norm is not None for fitting in _find_fitting(student, teacher)):
        raise _nothing_fits(student, teacher)


def _nothing_fits(student: PreTrainedModel, teacher: PreTrainedModel) -> CheckpointError:
    return CheckpointError(
        f"nothing of {type(teacher).__name__} (hidden {_width(teacher)}) fits "
        f"{type(student).__name__} (hidden {_width(student)}): give the student the "
        "teacher's `hidden_size` and heads, or leave `initialize_from` out"
    )


def _match_depths(student: PreTrainedModel, teacher: PreTrainedModel) -> list[int]:
    """The teacher's layer, counted from 0, of each of the student's."""
    own_layers, layers = find_layers(student)[1], find_layers(teacher)[1]
    return [
        match_depth(index + 1, num_layers=len(own_layers), num_sources=len(layers)) - 1
        for index in range(len(own_layers))
    ]


@dataclass(frozen=True)
class _Fitting:
    """A parameter that plays the same part and has the same shape in both models."""

    owner: str
    """The student's module by name."""
    module: nn.Module
    name: str
    """Of the parameter in that module."""
    value: Tensor
    """The teacher's."""
    norm: nn.Module | None
    """The teacher's norm whose weight it is; None where it is no norm's."""


def _find_fitting(student: PreTrainedModel, teacher: PreTrainedModel) -> Iterator[_Fitting]:
    own_prefix, own_layers = find_layers(student)
    prefix, layers = find_layers(teacher)
    depths = _match_depths(student, teacher)
    shares = count_shares(teacher.config)
    for owner, module in student.named_modules():
        name_there = owner
        if owner.startswith(f"{own_prefix}."):
            index, _, rest = owner.removeprefix(f"{own_prefix}.").partition(".")
            depth = depths[int(index)]
            rest = source_name(rest, own=own_layers[int(index)], source=layers[depth])
            name_there = f"{prefix}.{depth}.{rest}".removesuffix(".")
        source = find_submodule(teacher, name_there)
        for name, parameter in module.named_parameters(recurse=False):
            value = (
                _read_elsewhere(teacher, name_there, kind=name, shares=shares)
                if source is None
                else find_parameter(source, name)
            )
            if value is not None and value.shape == parameter.shape:
                norm = source if name == "weight" and is_norm(module) else None
                yield _Fitting(owner, module, name, value, norm)


def _read_elsewhere(
    teacher: PreTrainedModel, path: str, *, kind: str, shares: Mapping[str, int]
) -> Tensor | None:
    """A parameter of projections that the student fuses, or divides, and the teacher does not."""
    where, _, linear = path.rpartition(".")
    block = find_submodule(teacher, where)
    return None if block is None else read_projections(block, linear, kind=kind, shares=shares)


def _match_embeddings(student: PreTrainedModel, *, teacher: PreTrainedModel) -> str | None:
    """Scales embeddings that were copied so that the first layer reads what the teacher's reads.

    A head that shares them then reads a final norm scaled by the inverse, so its logits stay.
    """
    own, source = (model.get_input_embeddings() for model in (student, teacher))
    weights = own.get_parameter("weight")
    if weights.shape != source.get_parameter("weight").shape:
        return None
    factor = embedding_scale(teacher) / embedding_scale(student)
    if abs(factor - 1) <= MAX_RELATIVE_ERROR:
        return None
    head = student.get_output_embeddings()
    if head is not None and head.get_parameter("weight") is weights:
        norm = find_final_norm(student)
        if norm is None:
            return f"the teacher scales its embeddings by {factor:.3g}, the student does not"
        norm.get_parameter("weight").div_(factor)
    weights.mul_(factor)
    return None


def _compare_layers(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    *,
    depths: Sequence[int],
    copied: Set[Tensor],
) -> str | None:
    """A sentence where a block that was taken over computes something else."""
    own_layers, layers = find_layers(student)[1], find_layers(teacher)[1]
    found: list[str] = []
    for name, compare in COMPARED.items():
        errors = [0.0]
        for own, depth in zip(own_layers, depths, strict=True):
            block, source = find_submodule(own, name), find_submodule(layers[depth], name)
            if block is not None and source is not None and _is_taken(block, copied):
                errors.append(compare(student, teacher, own=block, source=source) or 0.0)
        if max(errors) > MAX_RELATIVE_ERROR:
            found.append(f"{name} {max(errors):.2f}")
    if not found:
        return None
    return (
        f"layers that were taken over give other outputs than the teacher's (relative difference "
        f"of {', '.join(found)}): {type(student).__name__} computes them otherwise than "
        f"{type(teacher).__name__}, as with norms of queries and keys, biases, caps or activations"
    )


def _takes_head(student: PreTrainedModel, copied: Set[Tensor]) -> bool:
    """Whether all that makes logits of the last state was taken over."""
    parts = (find_final_norm(student), student.get_output_embeddings())
    return all(part is not None and part.get_parameter("weight") in copied for part in parts)


def _is_taken(block: nn.Module, copied: Set[Tensor]) -> bool:
    """Whether all projections of a block were taken over."""
    return all(item in copied for name, item in block.named_parameters() if "proj" in name)


def _width(model: PreTrainedModel) -> int:
    return model.config.get_text_config().hidden_size
