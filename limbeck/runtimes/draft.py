"""A draft of an answer, and the judgement whether it is to be shown."""

from collections.abc import Callable
from dataclasses import dataclass

from limbeck.contracts.answer_policy import AnswerPolicy, Judgement, repeats
from limbeck.contracts.answerer import Answerer, Prompt, geometric_mean


@dataclass(frozen=True)
class DraftAnswer:
    """What a model would answer, and how sure it is."""

    text: str
    token_confidence_ratio: float
    """Geometric mean of the probabilities of its tokens."""
    judgement: Judgement | None
    """None: the model is not calibrated."""
    is_repeating: bool
    """Whether it was stopped because it repeated itself."""

    @property
    def is_shown(self) -> bool:
        """Whether it is an answer, rather than a sign that the model does not know."""
        return not self.is_repeating and (self.judgement is None or self.judgement.is_sure)


def draft_answer(
    answerer: Answerer,
    prompt: Prompt,
    *,
    policy: AnswerPolicy,
    max_new_tokens: int,
    on_piece: Callable[[str], None] = lambda _: None,
) -> DraftAnswer:
    """The model's draft, its pieces handed over as they come; it stops where it repeats itself.

    Raises:
        ImageError: an image cannot be read.
        DataError: the prompt does not fit the model, or has images that it cannot read.
    """
    text, logs, is_repeating = "", [], False
    for piece, log_prob in answerer.stream(prompt, max_new_tokens=max_new_tokens):
        text += piece
        logs.append(log_prob)
        on_piece(piece)
        if repeats(text):
            is_repeating = True
            break
    ratio = geometric_mean(logs)
    judgement = policy.judge(prompt.question, confidence_ratio=ratio)
    return DraftAnswer(text, ratio, judgement, is_repeating)
