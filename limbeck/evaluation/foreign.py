"""Questions of other domains and languages: what a model of one domain should not answer.

Half of them calibrate a model's confidence, the other half measure it.
"""

import csv
from collections.abc import Collection
from importlib import resources
from typing import Literal, get_args

from limbeck.contracts.records import Question

Purpose = Literal["calibration", "measurement"]
Topic = Literal[
    "business",
    "cars",
    "chat",
    "code",
    "computing",
    "cooking",
    "farming",
    "film",
    "finance",
    "games",
    "geography",
    "history",
    "law",
    "medicine",
    "mixed",
    "music",
    "nonsense",
    "pets",
    "school",
    "science",
    "shopping",
    "sport",
    "travel",
    "writing",
]
"""What a question is about; `chat` is small talk, `nonsense` no question at all."""
TOPICS: tuple[Topic, ...] = get_args(Topic)
FOREIGN = "foreign"
"""The task of these questions."""
UNKNOWN = "不知道"


def read_foreign(purpose: Purpose, *, without: Collection[str] = ()) -> tuple[Question, ...]:
    """The questions of one half, without those about some topics, in the order of the file."""
    file = resources.files("limbeck.evaluation") / "foreign_questions.tsv"
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return tuple(
        Question(
            f"{FOREIGN}:{purpose}:{place}",
            FOREIGN,
            row["question"],
            (UNKNOWN,),
            "single",
            specialty=row["topic"],
        )
        for place, row in enumerate(rows)
        if row["set"] == purpose and row["topic"] not in without
    )
