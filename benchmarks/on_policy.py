"""Tokens a second of the answers that a student writes on an on-policy step.

Limbeck writes all answers of a step side by side, and leaves out those that ended; TRL's GKD
trainer calls `generate` once a micro-batch (`trl`), or once a step where the whole step is one
micro-batch (`trl_whole_step`), which then holds all of its logits at once. `one_by_one` is
Limbeck's with one answer at a time. All sides share one Qwen3 model with fresh weights of 6.8 M
parameters, float32, one thread, the same questions, T = 1 and top-p = 1; seconds are those of the
processor. The end token's logit is raised so that answers have geometric lengths, as they have
where each token may be the last. Tokens of an answer are counted, its end included. Left out:
judging the answers, which `distill_step.py` measures, and quality.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.update(
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    CUDA_VISIBLE_DEVICES="",
    TRL_EXPERIMENTAL_SILENCE="1",
)

import numpy as np
import torch
from reporting import environment, parse_options, report
from transformers import GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from trl.experimental.gkd import GKDTrainer

from limbeck.distillation.config import OnPolicy
from limbeck.models.batch import Batch

VOCAB = 8192
SIZE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
PAD, END = 0, 1
MEDIAN_QUESTION_TOKENS = 40
SPREAD = 0.8
"""Standard deviation of the logarithm of a question's length."""
MEAN_ANSWER_TOKENS = 24
MAX_NEW_TOKENS = 64
BATCH_RECORDS, ACCUMULATION_STEPS = 4, 4
STEP_RECORDS = BATCH_RECORDS * ACCUMULATION_STEPS
NUM_QUESTIONS = 256
Write = Callable[[int], tuple[int, float]]
"""From a step to the answer tokens that were written, and the seconds it took."""


def make_model() -> PreTrainedModel:
    """A student whose every token is the last one with the same chance."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(**SIZE, vocab_size=VOCAB, tie_word_embeddings=True, pad_token_id=PAD)  # pyright: ignore[reportArgumentType, reportCallIssue]
    ).eval()
    raised = torch.zeros(VOCAB)
    raised[END] = np.log(VOCAB / MEAN_ANSWER_TOKENS)

    def raise_end(module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits + raised

    model.lm_head.register_forward_hook(raise_end)
    return model


class Questions:
    """Random questions with log-normal lengths."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        lengths = generator.lognormal(np.log(MEDIAN_QUESTION_TOKENS), SPREAD, NUM_QUESTIONS)
        self.tokens = [
            generator.integers(2, VOCAB, int(np.clip(length, 4, 200))).tolist()
            for length in lengths
        ]
        self.has_images = False
        self.ids = np.arange(NUM_QUESTIONS)
        self.answer_starts = np.asarray([len(tokens) for tokens in self.tokens])

    def no_written(self, step: int) -> list[Batch]:
        """Never asked for."""
        raise NotImplementedError("every step is the student's own")

    def order(self, step: int) -> np.ndarray:
        """The questions of a step."""
        return (step * STEP_RECORDS + np.arange(STEP_RECORDS)) % NUM_QUESTIONS

    def prompt(self, record_id: int) -> list[int]:
        """One of them."""
        return self.tokens[record_id]


def ours(model: PreTrainedModel, questions: Questions, *, generation_batch_size: int) -> Write:
    """Limbeck's way."""
    config = OnPolicy(
        ratio=1.0, max_new_tokens=MAX_NEW_TOKENS, generation_batch_size=generation_batch_size
    )
    own = config.build(
        model=model,
        records=questions,
        written=questions.no_written,
        split=lambda rows, lengths: [rows.tolist()],
        max_tokens=512,
        vocab=VOCAB,
        end_ids=(END,),
        pad_id=PAD,
        seed=0,
    )

    def write(step: int) -> tuple[int, float]:
        started = time.process_time()
        batches = own(step)
        seconds = time.process_time() - started
        return sum(int((batch.labels >= 0).sum()) for batch in batches), seconds

    return write


def trl(model: PreTrainedModel, questions: Questions, *, batch_records: int) -> Write:
    """What TRL's trainer calls for each micro-batch."""
    config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=1.0,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        use_cache=True,
        pad_token_id=PAD,
        eos_token_id=END,
    )

    def write(step: int) -> tuple[int, float]:
        torch.manual_seed(step)
        asked = [questions.prompt(index) for index in questions.order(step).tolist()]
        num_tokens, started = 0, time.process_time()
        for first in range(0, len(asked), batch_records):
            part = asked[first : first + batch_records]
            width = max(len(question) for question in part)
            ids = torch.full((len(part), width), PAD)
            mask = torch.zeros_like(ids)
            for row, question in enumerate(part):
                ids[row, width - len(question) :] = torch.tensor(question)
                mask[row, width - len(question) :] = 1
            given = {"prompts": ids, "prompt_attention_mask": mask}
            _, _, labels = GKDTrainer.generate_on_policy_outputs(model, given, config)
            num_tokens += int((labels >= 0).sum())
        return num_tokens, time.process_time() - started

    return write


def run(*, num_turns: int) -> list[dict[str, Any]]:
    """A row for each turn and side."""
    model, questions = make_model(), Questions()
    sides = {
        "ours": ours(model, questions, generation_batch_size=STEP_RECORDS),
        "one_by_one": ours(model, questions, generation_batch_size=1),
        "trl": trl(model, questions, batch_records=BATCH_RECORDS),
        "trl_whole_step": trl(model, questions, batch_records=STEP_RECORDS),
    }
    rows: list[dict[str, Any]] = []
    names = list(sides)
    for write in sides.values():
        write(0)
    for turn in range(num_turns):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            num_tokens, seconds = sides[name](1 + turn)
            rows.append(
                {
                    "side": name,
                    "turn": turn,
                    "tokens_per_second": num_tokens / seconds,
                    "answer_tokens": num_tokens / STEP_RECORDS,
                }
            )
    return rows


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns of how many times faster Limbeck's is."""
    speeds = {(row["side"], row["turn"]): row["tokens_per_second"] for row in rows}
    turns = sorted({turn for _, turn in speeds})
    names = {
        "trl": "generation_over_trl",
        "trl_whole_step": "generation_over_trl_whole_step",
        "one_by_one": "generation_over_one_by_one",
    }
    return {
        name: statistics.median(speeds["ours", turn] / speeds[other, turn] for turn in turns)
        for other, name in names.items()
    }


def main() -> None:
    """Measure, print, write."""
    options = parse_options("answers of on-policy steps against TRL's GKD trainer")
    torch.set_num_threads(1)
    machine = environment()
    rows = run(num_turns=4 if options.quick else 12)
    report(options, environment=machine, rows=rows, ratios=compare(rows), labels=("side",))


if __name__ == "__main__":
    main()
