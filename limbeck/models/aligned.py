"""How the tokens of a student and of a teacher with another tokenizer belong together."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class Aligned(NamedTuple):
    """Spans of text that both sides write, and outcomes that mean the same to both.

    A teacher's targets that come with this are of its own tokens, at its own positions.
    """

    student_spans: Int[Tensor, " kept"]
    """Of each kept position's next token, ascending; -1 where the teacher has no such span."""
    teacher_spans: Int[Tensor, " teacher_kept"]
    """The same spans, at the teacher's kept positions."""
    teacher_tokens: Int[Tensor, " teacher_kept"]
    """What the teacher's positions are followed by."""
    student_outcomes: Int[Tensor, " student_vocab"]
    """The outcome that each token counts as."""
    teacher_outcomes: Int[Tensor, " teacher_vocab"]
    num_outcomes: int
    """The last one holds all that has no meaning to the other side."""
