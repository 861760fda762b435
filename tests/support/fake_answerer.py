"""A model that looks its answers up: a stand-in for a runtime, importable by a fresh process."""

import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from limbeck.contracts.answerer import Answer, Answerer, PromptLike, Size, as_prompt
from limbeck.contracts.errors import CheckpointError, PromptLengthError
from limbeck.contracts.records import Question

ANSWERS = {
    "高血压去医院看什么科？": "心血管内科。",
    "高血压通常会出现什么症状？": "头痛、头晕和心悸",
    "我出现了胸闷，去医院看哪个科？": "心血管内科",
}


class LookUp(Answerer):
    """Knows a table by heart; the folder's name says how well."""

    def __init__(self, folder: Path, *, num_threads: int) -> None:
        self._knows = "ignorant" not in folder.name
        self._threads = num_threads
        self._ballast = b"x" * (32 * 2**20 if "heavy" in folder.name else 0)
        self.asked: list[str] = []

    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        questions = [as_prompt(prompt).question for prompt in prompts]
        self.asked += questions
        texts = [
            ANSWERS.get(question, "不知道") if self._knows else "不知道" for question in questions
        ]
        sum(math.sqrt(index) for index in range(20_000))
        return [Answer(text[:max_new_tokens], len(text), 0.9) for text in texts]

    def sample(
        self,
        prompts: Sequence[PromptLike],
        *,
        seeds: Sequence[int],
        temperature: float,
        max_new_tokens: int,
    ) -> list[Answer]:
        return self.answer(prompts, max_new_tokens=max_new_tokens)

    def stream(self, prompt: PromptLike, *, max_new_tokens: int) -> Iterator[tuple[str, float]]:
        yield self.answer([prompt], max_new_tokens=max_new_tokens)[0].text, math.log(0.9)

    def score(self, prompt: PromptLike, options: Sequence[str]) -> list[float]:
        right = [-float(abs(len(option) - 8)) for option in options]
        return right if self._knows else [-item for item in right]

    def count_answer_tokens(self, answer: str) -> int:
        return len(answer) + 1

    def size(self) -> Size:
        return Size(1000, 400, 4000) if self._knows else Size(100, 100, 100)

    def num_threads(self) -> int:
        return self._threads


def open_lookup(folder: Path, *, num_threads: int, num_rows: int = 1) -> LookUp:
    return LookUp(folder, num_threads=num_threads)


class Threaded(LookUp):
    """Every answer has as many tokens as there are threads."""

    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        answers = super().answer(prompts, max_new_tokens=max_new_tokens)
        return [Answer(item.text, self.num_threads(), 0.9) for item in answers]


def open_threaded(folder: Path, *, num_threads: int, num_rows: int = 1) -> Threaded:
    """Notes threads and rows beside the folder, whichever process opens it."""
    with folder.with_suffix(".opened").open("a") as file:
        file.write(f"{num_threads} {num_rows}\n")
    return Threaded(folder, num_threads=num_threads)


class Short(LookUp):
    """Reads questions of at most 12 characters."""

    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        for question in [as_prompt(prompt).question for prompt in prompts]:
            if len(question) > 12:
                raise PromptLengthError(f"{len(question)} characters")
        return super().answer(prompts, max_new_tokens=max_new_tokens)


def open_short(folder: Path, *, num_threads: int, num_rows: int = 1) -> Short:
    return Short(folder, num_threads=num_threads)


def open_broken(folder: Path, *, num_threads: int, num_rows: int = 1) -> LookUp:
    raise CheckpointError(f"{folder}: the weights are cut short; copy them again")


def open_dying(folder: Path, *, num_threads: int, num_rows: int = 1) -> LookUp:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


QUESTIONS = (
    Question(
        "r1",
        "recall",
        "高血压去医院看什么科？",
        ("心血管内科",),
        "single",
        specialty="cardiology",
        group="高血压|specialty",
    ),
    Question(
        "r2",
        "recall",
        "高血压通常会出现什么症状？",
        ("头晕", "头痛", "心悸"),
        "list",
        specialty="cardiology",
        group="高血压|symptoms",
    ),
    Question(
        "t1",
        "triage",
        "我出现了胸闷，去医院看哪个科？",
        ("心血管内科",),
        "single",
        specialty="cardiology",
        group="胸闷",
    ),
    Question(
        "t2",
        "triage",
        "我出现了咳嗽，去医院看哪个科？",
        ("呼吸内科",),
        "single",
        specialty="respiratory",
        group="咳嗽",
    ),
    Question(
        "c1",
        "choice",
        "高血压一般要检查什么？",
        ("血压测量、心电图",),
        "choice",
        options=("肺功能检查", "血压测量、心电图", "皮肤镜", "胃镜、肠镜、活检、造影、摄片"),
        specialty="cardiology",
        group="高血压|examinations",
    ),
    Question("x1", "refusal", "霍乱怎么治？", ("不知道",), "single", group="霍乱"),
)
