"""Signs that a student will learn little, each as a pure function of measured figures.

Each returns a warning with what was found, what was expected and what to do, or nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from limbeck.evaluation.metrics import Interval

MIN_TEACHER_SHARE, MAX_TEACHER_SHARE = 0.05, 0.99
"""Of the gradient, from the teacher, where it is mixed with the written answers."""
MIN_TOTAL_VARIATION = 0.01
"""Total variation between a teacher at T and at 1."""
MIN_TOP1_AGREEMENT, MAX_CE_RATIO = 0.1, 0.5
"""Labels that are the teacher's likeliest token; its cross-entropy as a share of ln V."""
INITIAL_LOSS_TOLERANCE, MAX_INITIAL_LOSS_RATIO = 0.15, 0.8
"""How far a fresh loss may lie from ln V, and what a checkpoint's may reach, as shares of ln V."""
MIN_ANSWERS, MIN_MAJORITY, MAJORITY_EXCESS = 20, 0.5, 0.2
"""When the answers count as collapsed: one is so frequent, and so much more than in the data."""
MIN_OPENINGS, MIN_OPENING_RATIO, MIN_OPENING_EXCESS = 8, 0.5, 4
"""When a teacher opens its answers in its own way: of at least so many, half begin with one token,
four times as many as are written so."""
MAX_PADDED_RATIO = 0.05
MIN_COSINE = 0.05
"""Of two gradients; what is nearer to zero says nothing."""


def teacher_gradient_share(*, teacher_norm: float, label_norm: float) -> float:
    """The teacher's part of two gradient norms; 0 where both are zero."""
    total = teacher_norm + label_norm
    return teacher_norm / total if total else 0.0


def check_teacher_share(share: float, *, weight: float) -> str | None:
    """A warning where one term drowns the other although the weight mixes both."""
    if not 0 < weight < 1 or MIN_TEACHER_SHARE <= share <= MAX_TEACHER_SHARE:
        return None
    if share < MIN_TEACHER_SHARE:
        return (
            f"the teacher gives {share:.1%} of the gradient at weight {weight:g}, expected at "
            f"least {MIN_TEACHER_SHARE:.0%}: raise `weight`, or check that teacher and student "
            "differ"
        )
    return (
        f"the teacher gives {share:.1%} of the gradient at weight {weight:g}, so written answers "
        "hardly count: lower `weight`, or set it to 1 if that is meant"
    )


def check_temperature(
    *, soft: Float[Tensor, "kept vocab"], plain: Float[Tensor, "kept vocab"], temperature: float
) -> str | None:
    """A warning where the teacher's log-probabilities at T and at 1 are nearly the same."""
    if temperature == 1:
        return "temperature is 1, which softens nothing: try 2.0, or keep 1 if that is meant"
    shift = float((soft.exp() - plain.exp()).abs().sum(dim=-1).mean()) / 2
    if shift >= MIN_TOTAL_VARIATION:
        return None
    return (
        f"temperature {temperature:g} moves {shift:.2%} of the teacher's probability, expected at "
        f"least {MIN_TOTAL_VARIATION:.0%}: the teacher is certain of one token (or of none); raise "
        "`temperature`, or save time with `next_token` on its answers"
    )


def top1_agreement(
    logs: Float[Tensor, "kept vocab"], *, labels: Int[Tensor, " kept"]
) -> tuple[float, float]:
    """The share of labels that are the likeliest token, and their mean cross-entropy in nats."""
    right = (logs.argmax(dim=-1) == labels).float().mean()
    return float(right), -float(logs.gather(1, labels.unsqueeze(1)).mean())


def check_agreement(*, agreed: float, ce: float, vocab: int) -> str | None:
    """A warning where the teacher does not predict the written answers."""
    limit = MAX_CE_RATIO * math.log(vocab)
    if agreed >= MIN_TOP1_AGREEMENT and ce <= limit:
        return None
    return (
        f"the teacher's likeliest token is the label at {agreed:.1%} of positions and its "
        f"cross-entropy on labels is {ce:.2f} nats (guessing: {math.log(vocab):.2f}): check that "
        "the corpus has the teacher's chat template and language, and that the teacher is trained"
    )


def check_first_tokens(
    likeliest: Sequence[int], *, labels: Sequence[int], show: Callable[[int], str]
) -> str | None:
    """A warning where the teacher begins its answers otherwise than the records do.

    A teacher that thinks first opens every answer with the same token, such as `<think>`.
    """
    if len(likeliest) < MIN_OPENINGS:
        return None
    token, count = Counter(likeliest).most_common(1)[0]
    written = sum(label == token for label in labels)
    if count < MIN_OPENING_RATIO * len(likeliest) or written * MIN_OPENING_EXCESS > count:
        return None
    return (
        f"the teacher begins {count} of {len(likeliest)} answers with {show(token)!r}, the records "
        f"{written}: a teacher that thinks first is told not to by `enable_thinking: off` where "
        "the corpus is prepared; otherwise check its chat template, and that it is trained"
    )


def check_initial_loss(ce: float, *, vocab: int, fresh: bool) -> str | None:
    """A warning where a student's first cross-entropy does not fit how it was initialised."""
    guessing = math.log(vocab)
    if fresh and abs(ce - guessing) > INITIAL_LOSS_TOLERANCE * guessing:
        return (
            f"a fresh student's first cross-entropy is {ce:.2f}, expected about ln V = "
            f"{guessing:.2f}: lower `initializer_range`, or check that labels stand one token on"
        )
    if not fresh and ce > MAX_INITIAL_LOSS_RATIO * guessing:
        return (
            f"the student's first cross-entropy is {ce:.2f}, hardly below guessing "
            f"({guessing:.2f}), although it starts from a checkpoint: check its tokenizer and chat "
            "template against the corpus's"
        )
    return None


def check_vocab_sizes(
    *, student_rows: int, teacher_tokens: int, tokenizer_tokens: int
) -> str | None:
    """A warning where student, teacher and tokenizer count tokens differently."""
    if student_rows < tokenizer_tokens:
        return (
            f"the student has {student_rows} rows for {tokenizer_tokens} tokens: make it with the "
            "corpus's tokenizer"
        )
    if teacher_tokens != tokenizer_tokens:
        return (
            f"the teacher has {teacher_tokens} tokens, the tokenizer {tokenizer_tokens}: "
            "only the first ones they share are learnt; prepare the corpus with the teacher's "
            "tokenizer"
        )
    padded = student_rows - tokenizer_tokens
    if padded > MAX_PADDED_RATIO * student_rows:
        return (
            f"{padded} of the student's {student_rows} rows stand for no token and only cost "
            "memory: shrink its vocabulary"
        )
    return None


def check_answer_collapse(answers: Sequence[Hashable], *, labels: Sequence[Hashable]) -> str | None:
    """A warning where a student gives one answer to most questions."""
    if len(answers) < MIN_ANSWERS or not labels:
        return None
    given = Counter(answers).most_common(1)[0][1] / len(answers)
    written = Counter(labels).most_common(1)[0][1] / len(labels)
    if given < MIN_MAJORITY or given < written + MAJORITY_EXCESS:
        return None
    return (
        f"the student gives one answer to {given:.0%} of {len(answers)} questions, the commonest "
        f"written answer has {written:.0%}: train longer, balance the answers with "
        "`batching.repeats`, or raise `weight`"
    )


def check_teacher_gain(gain: Interval, *, when: Literal["before", "after"]) -> str | None:
    """A warning where the teacher predicts held-out answers no better than its student.

    Before training it is enough that the teacher is not better; after it, a student that has
    learnt all that its teacher knows is as good, so the whole interval has to lie below zero.
    """
    size = f"{gain.value:+.3f} nats a token, teacher minus student ({gain.low:+.3f} to "
    size += f"{gain.high:+.3f})"
    if when == "before" and gain.value <= 0:
        return (
            f"the student predicts held-out written answers as well as its teacher before it "
            f"learns anything: {size}: train the teacher longer (`training.early_stopping`), or "
            "use a stronger one"
        )
    if when == "after" and gain.high < 0:
        return (
            f"the student predicts held-out written answers better than its teacher: {size}: the "
            "teacher holds it back or is not needed; train the teacher longer "
            "(`training.early_stopping`), lower `weight`, and compare with the student alone "
            "(`limbeck tune --quick-check`)"
        )
    return None


def check_teacher_cosines(*, teacher: Sequence[float], labels: Sequence[float]) -> str | None:
    """A warning where a step on the teacher's part raises the held-out cross-entropy.

    Both cosines are with the gradient of the cross-entropy of held-out written answers, once for
    each half of these records; all must agree.
    """
    if max(teacher) > -MIN_COSINE or min(labels) < MIN_COSINE:
        return None
    worst, best = max(teacher), min(labels)
    return (
        f"the teacher's part of the loss raises the held-out cross-entropy of written answers "
        f"(cosine of the gradients {worst:+.2f}), the labels' part lowers it ({best:+.2f}): lower "
        "`weight` or `temperature`, or check that the teacher is trained on this task"
    )
