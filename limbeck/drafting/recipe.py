"""The text of a recipe for one source, with a comment for what its reader may want to change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from limbeck.contracts.json_data import JsonObject
from limbeck.drafting.findings import FileFindings

PASSES = 3
BATCH_RECORDS = 32
LEAST_STEPS = 20
LENGTH_STEP = 64
LEAST_LENGTH, MOST_LENGTH = 128, 2048
HELD_OUT_RECORDS = 400
"""Questions enough for an interval of five points, where the file holds many records."""
MAX_HELD_OUT_RATIO = 0.1
LANGUAGE_HINT = "  # language: de   # where a comma is the decimal mark: 2,5 mg is 2.5 mg"


@dataclass(frozen=True)
class DraftOptions:
    """What the user chose, and what was measured with the teacher's tokenizer."""

    source: JsonObject
    teacher: str
    student: str
    """A folder or hub name; empty: a fresh model."""
    fresh_student: JsonObject
    """The description of the fresh model."""
    language: str
    """Of the answers, as ISO 639 has it; empty: not stated."""
    longest_tokens: int
    """Nearly all records, as the model reads them, are at most so long."""
    answer_tokens: int
    """Nearly all answers are at most so long."""
    mean_tokens: float
    """Of a record, as the model reads it."""
    entries: Mapping[str, JsonObject] = field(default_factory=dict)
    """What makes the models that are no checkpoints yet, by entry."""
    note: str = ""
    """What the recipe does not use, and why."""


def draft(findings: FileFindings, choices: DraftOptions, *, title: str) -> str:
    """A recipe that runs."""
    num_records = len(findings.records)
    held_out = min(MAX_HELD_OUT_RATIO, HELD_OUT_RECORDS / num_records)
    num_train = round((num_records - findings.num_with_images) * (1 - 2 * held_out))
    steps = max(LEAST_STEPS, math.ceil(PASSES * num_train / BATCH_RECORDS))
    length = LENGTH_STEP * math.ceil(choices.longest_tokens / LENGTH_STEP)
    length = min(max(length, LEAST_LENGTH), MOST_LENGTH)
    fresh = not choices.student
    student = _flow(choices.fresh_student) if fresh else _scalar(choices.student)
    rate = 0.001 if fresh else 0.00002
    batching = (
        f"{{per_device_train_batch_size: 8, gradient_accumulation_steps: 4, max_length: {length}"
        f"{', images: without' if findings.num_with_images else ''}}}"
    )
    return f"""\
# {title}
# `limbeck check` and `limbeck plan` say whether it can run and what it costs; `limbeck run` makes
# it and goes on where it stopped; `limbeck run --until ENTRY` makes one entry and what it needs.
{f"# {choices.note}{chr(10)}" if choices.note else ""}
{"".join(f"{name}: {_flow(entry)}{chr(10)}{chr(10)}" for name, entry in choices.entries.items())}\
corpus:
  stage: prepare
  sources:
    # Texts stay as they are; `normalization: light` or `zh` on a source changes them.
    - {_flow(choices.source)}
  # The report asks the records of the test split.
  splits: {{validation_ratio: {held_out:.4g}, test_ratio: {held_out:.4g}}}
  tokenizer: {_scalar(choices.teacher)}

student:
  stage: distill
  student: {student}
  teacher: {_scalar(choices.teacher)}
  corpus: corpus
  # The teacher's distribution at each token, beside the written answers.
  objective: {{kind: soft_target, temperature: 2.0, weight: 0.7}}
  batching: {batching}
  training: {{max_steps: {steps}, learning_rate: {rate:f}}}   # {PASSES} passes

int8:
  stage: quantize
  checkpoint: student
  teacher: {_scalar(choices.teacher)}
  corpus: corpus
  scheme: {{kind: int8}}
  objective: {{kind: soft_target}}
  batching: {batching}
  training: {{max_steps: {max(LEAST_STEPS, steps // 10)}, learning_rate: {rate / 5:f}}}

bundle: {{stage: export, checkpoint: int8, corpus: corpus, runtime: onnx}}

report:
  stage: evaluate
  models: [{_scalar(choices.teacher)}, student, int8, bundle]
  corpus: corpus
  questions: test
  max_questions: 200
  max_new_tokens: {min(512, max(16, choices.answer_tokens))}
{f"  language: {choices.language}" if choices.language else LANGUAGE_HINT}

# What `limbeck plan` counts with before the corpus is made: measured on some records.
plan: {{record_tokens: {min(choices.mean_tokens, length):.1f}}}
"""


def _flow(value: Mapping[str, object]) -> str:
    return yaml.safe_dump(
        dict(value), default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    ).strip()


def _scalar(text: str) -> str:
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=math.inf)[1:-2]
