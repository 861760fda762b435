"""A confidence that follows the token probability alone, for tests of what is declined."""

from limbeck.contracts.answer_policy import Confidence

CONFIDENCE = Confidence(
    bias=0.0,
    log_prob_weight=1.0,
    familiarity_weight=0.0,
    unseen_ngrams=0,
    min_confidence_ratio=0.4,
    min_familiarity_ratio=0.5,
    basis="right answers",
    num_held_out=100,
    num_right=90,
    num_foreign=100,
    declined_right_ratio=0.0,
    declined_foreign_ratio=1.0,
)
