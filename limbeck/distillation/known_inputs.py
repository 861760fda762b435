"""What distillation refuses of models before it runs, by the functions that refuse while it runs.

Libraries that only looking at layers needs are imported where that is called for.
"""

from collections.abc import Iterator, Sequence

from limbeck.models.known import KnownInputs, KnownModel, KnownTokenizer, Refusal, refusals
from limbeck.objectives.config import MatchedFeature, Needs, ObjectiveConfig


def refuse_training(
    inputs: KnownInputs, *, field: str, packed: bool, objective: ObjectiveConfig
) -> Iterator[Refusal]:
    """Whatever keeps an entry from training the model that it starts from."""
    start = inputs.start
    if start is None:
        return
    yield from refusals(field, start.check_floats)
    if packed and start.description is None:
        from limbeck.models.forward import check_packing  # noqa: PLC0415  (torch)

        model_type = start.config.get_text_config().model_type
        yield from refusals("batching.packing", lambda: check_packing(model_type))
    for pair in objective.matched_features:
        if pair.student_layer > start.num_layers:
            yield Refusal(
                "objective.matching",
                f"matching wants student layer {pair.student_layer}, the student has "
                f"{start.num_layers}",
            )


def refuse_teachers(
    inputs: KnownInputs, *, needs: Needs | None, matched: Sequence[MatchedFeature] = ()
) -> Iterator[Refusal]:
    """Whatever keeps teachers from teaching the model that an entry starts from."""
    if needs is None:
        return
    corpus, start = inputs.corpus_tokenizer, inputs.start
    if corpus is not None and start is not None and start.tokenizer is not None:
        yield from _refuse_tokenizer(start, start.tokenizer, corpus, field="")
    hidden = [pair.teacher_layer for pair in matched if pair.kind == "hidden"]
    inner = [pair.teacher_layer for pair in matched if pair.kind != "hidden"]
    for teacher in inputs.named("teacher"):
        yield from refuse_teacher(
            teacher, corpus=corpus, layers=[*hidden, *inner], own_tokenizer=needs.tokenizer == "own"
        )
    if matched and inputs.recorded_layers is not None:
        yield from _refuse_recorded(inputs.recorded_layers, hidden=hidden, inner=inner)


def refuse_teacher(
    teacher: KnownModel,
    *,
    corpus: KnownTokenizer | None,
    layers: Sequence[int] = (),
    own_tokenizer: bool = False,
) -> Iterator[Refusal]:
    """Whatever keeps a model from running as a live teacher, or from being recorded."""
    theirs = teacher.tokenizer
    if not own_tokenizer and corpus is not None and theirs is not None:
        yield from _refuse_tokenizer(teacher, theirs, corpus, field="teacher")
    if teacher.description is None:
        from limbeck.models.structure import find_layers  # noqa: PLC0415  (torch)

        yield from refusals("teacher", lambda: find_layers(teacher.layers))
    missing = [layer for layer in layers if layer > teacher.num_layers]
    if missing:
        yield Refusal(
            "teacher",
            f"teacher layers {missing} are required, {teacher.name} has {teacher.num_layers}",
        )


def _refuse_tokenizer(
    model: KnownModel, theirs: KnownTokenizer, corpus: KnownTokenizer, *, field: str
) -> Iterator[Refusal]:
    difference = theirs.find_difference(corpus)
    if difference and field:
        yield Refusal(field, describe_difference(model.name, difference))
    elif difference:
        yield Refusal("student", describe_foreign_student(model.name, difference))


def describe_difference(teacher: str, difference: str) -> str:
    """Why a teacher of another tokenizer cannot teach."""
    return (
        f"{teacher}: the teacher's tokenizer differs from the corpus's ({difference}); "
        "prepare the corpus with `tokenizer: FOLDER` of the teacher, or learn from its text "
        "with `objective: {kind: cross_tokenizer}`"
    )


def describe_foreign_student(student: str, difference: str) -> str:
    """Why a student of another tokenizer than the corpus's cannot learn from a teacher."""
    return (
        f"{student}: the student's tokenizer differs from the corpus's ({difference}), so a "
        "teacher would read other tokens than were written; prepare the corpus with `tokenizer: "
        "FOLDER` of the student"
    )


def _refuse_recorded(
    recorded: Sequence[int], *, hidden: Sequence[int], inner: Sequence[int]
) -> Iterator[Refusal]:
    """Layers that signals of this recipe will not hold; layer 0 is of a map that is made later."""
    if inner:
        yield Refusal(
            "objective.matching",
            "signals hold hidden states, no attention and no values; name the teacher's checkpoint "
            "in `teacher`, or match `what: hidden`",
        )
    missing = [layer for layer in hidden if layer and layer not in recorded]
    if missing or (hidden and not recorded):
        yield Refusal(
            "objective.matching",
            f"signals are recorded for layers {list(recorded)}, the objective wants "
            f"{missing or 'some'}; set `layers` of the `record` entry",
        )


def refuse_inheritance(
    student: KnownModel | None, source: KnownModel, *, corpus: KnownTokenizer | None
) -> Iterator[Refusal]:
    """Whatever keeps a fresh model from starting with a checkpoint's weights."""
    theirs = source.tokenizer
    if theirs is not None and corpus is not None and theirs.find_difference(corpus):
        both_known = theirs.folder is not None and corpus.folder is not None
        if not both_known or theirs.loaded.get_vocab() != corpus.loaded.get_vocab():
            yield Refusal("initialize_from", describe_foreign_source(source.name))
    if student is None or (
        source.description is not None and source.hidden_size == student.hidden_size
    ):
        return
    from limbeck.distillation.initialization.from_weights import check_fit  # noqa: PLC0415

    yield from refusals("initialize_from", lambda: check_fit(student.layers, teacher=source.layers))


def describe_foreign_source(source: object) -> str:
    """Why a source of another tokenizer gives no embeddings."""
    return (
        f"{source}: its tokenizer is not the corpus's, so its embeddings mean other tokens; "
        "prepare the corpus with that tokenizer, or leave `initialize_from` out"
    )


def refuse_sampling(teachers: Sequence[KnownModel], *, num_samples: int) -> Iterator[Refusal]:
    """Whatever keeps experts of a teacher from being sampled."""
    if not num_samples:
        return
    for teacher in teachers:
        if not teacher.is_able("route"):
            from limbeck.distillation.teachers.router_sampling import check_gates  # noqa: PLC0415

            yield from refusals("router_sampling", lambda item=teacher: check_gates(item.layers))


def refuse_experts(source: KnownModel) -> Iterator[Refusal]:
    """Whatever keeps feed-forward layers from being made of a checkpoint's experts."""
    if not source.is_able("give_experts"):
        from limbeck.distillation.initialization.from_experts import check_experts  # noqa: PLC0415

        yield from refusals("initialize_experts", lambda: check_experts(source.layers))
