"""Which layers a named map means, once student and teacher are known."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.features.config import Matching
from limbeck.distillation.features.similarity import linear_cka
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.attention_capture import enable_attention_capture
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.structure import match_depth

LayerPairs = list[tuple[int, int]]


def resolve_layers(
    matching: Sequence[Matching],
    *,
    model: PreTrainedModel,
    teacher: Teacher,
    batches: Sequence[Batch] = (),
) -> tuple[Matching, ...]:
    """The same with every layer by number; maps by name are over the teacher's available layers.

    `searched` compares hidden states on `batches`.

    Raises:
        CheckpointError: the student has no such layer, the teacher has none, or a search has no
            batches.
    """
    num_layers = model.config.get_text_config().num_hidden_layers
    found: list[Matching] = []
    for item in matching:
        if item.layers == "pair":
            if item.student_layer > num_layers:
                raise CheckpointError(
                    f"matching wants student layer {item.student_layer}, the student has "
                    f"{num_layers}"
                )
            found.append(item)
            continue
        known = teacher.layers
        if not known:
            raise CheckpointError(
                f"`layers: {item.layers}` needs one live teacher, or signals recorded with "
                "`layers`: this teacher has no hidden states to match"
            )
        if item.layers == "last":
            pairs = [(num_layers, known[-1])]
        elif item.layers == "uniform":
            pairs = spread_evenly(num_layers, known)
        else:
            pairs = search(model, teacher, batches=batches)
        for ours, theirs in pairs:
            found.append(
                item.replace(
                    layers="pair",
                    student_layer=ours,
                    teacher_layer=theirs,
                    weight=item.weight / len(pairs),
                )
            )
    return tuple(found)


def spread_evenly(num_layers: int, known: Sequence[int]) -> LayerPairs:
    """Student layer i of n with teacher layer ceil(i m / n) of m, so that the last meet."""
    return [
        (layer, known[match_depth(layer, num_layers=num_layers, num_sources=len(known)) - 1])
        for layer in range(1, num_layers + 1)
    ]


@torch.no_grad()
def search(model: PreTrainedModel, teacher: Teacher, *, batches: Sequence[Batch]) -> LayerPairs:
    """The map in order of depth with the highest summed CKA of hidden states on the batches.

    Raises:
        CheckpointError: there are no batches.
    """
    if not batches:
        raise CheckpointError(
            "`layers: searched` compares the layers on records, which only the stage `distill` "
            "has; give student_layer and teacher_layer"
        )
    layers = range(1, model.config.get_text_config().num_hidden_layers + 1)
    teacher.require(layers=teacher.layers)
    ours: list[list[Tensor]] = []
    theirs: list[list[Tensor]] = []
    training = model.training
    model.eval()
    for batch in batches:
        batch = batch.to(model.device)
        ours.append(list(KeptForward(model)(batch, layers=layers).hidden))
        theirs.append(list(teacher(batch).hidden_states))
    model.train(training)
    students, teachers = (
        [torch.cat(states) for states in zip(*found, strict=True)] for found in (ours, theirs)
    )
    similarity = torch.stack(
        [
            torch.stack([linear_cka(student=one, teacher=other) for other in teachers])
            for one in students
        ]
    )
    path = best_monotone_path(similarity)
    return [(layer, teacher.layers[place]) for layer, place in zip(layers, path, strict=True)]


def best_monotone_path(similarity: Float[Tensor, "layers teacher_layers"]) -> list[int]:
    """A column for each row, rising, with the highest sum: no two rows share one if they fit.

    By dynamic programming over rows, exact; of equal sums the earlier columns.
    """
    rows, columns = similarity.shape
    step = 1 if rows <= columns else 0
    best = similarity[0].double().tolist()
    came: list[list[int]] = []
    for row in similarity[1:].double().tolist():
        before: list[int] = []
        values: list[float] = []
        leader = -1
        for column in range(columns):
            if column >= step and (leader < 0 or best[column - step] > best[leader]):
                leader = column - step
            before.append(leader)
            values.append(row[column] + best[leader] if leader >= 0 else -float("inf"))
        came.append(before)
        best = values
    place = max(range(columns), key=best.__getitem__)
    path = [place]
    for before in reversed(came):
        place = before[place]
        path.append(place)
    return path[::-1]


def require_layers(
    matching: Sequence[Matching], *, model: PreTrainedModel, teacher: Teacher
) -> None:
    """Make teacher and student return what is compared of their layers.

    Raises:
        ArtifactError: the teacher has no such layers, or no attention to return.
    """
    attention = [pair.teacher_layer for pair in matching if pair.what != "hidden"]
    layers = [pair.teacher_layer for pair in matching if pair.what == "hidden"]
    teacher.require(layers=layers, attention=attention)
    if attention:
        enable_attention_capture(model)
