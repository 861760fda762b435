"""The text of a recipe for one source, with a comment for what its reader may want to change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.contracts.json_data import JsonObject
from limbeck.drafting.cut_students import CHANNELS_RATIO, LAYERS_RATIO
from limbeck.drafting.findings import FileFindings
from limbeck.drafting.vision import Readers, VisionDraft, draft_readers
from limbeck.drafting.yaml_text import flow, scalar

PASSES = 3
BATCH_RECORDS = 32
LEAST_STEPS = 20
LENGTH_STEP = 64
LEAST_LENGTH, MOST_LENGTH = 128, 2048
HELD_OUT_RECORDS = 400
"""Questions enough for an interval of five points, where the file holds many records."""
MAX_HELD_OUT_RATIO = 0.1
FRESH_RATE, CUT_RATE, PUBLISHED_RATE = 0.001, 0.0003, 0.00002
BUNDLE = "bundle: {stage: export, checkpoint: int8, corpus: corpus, runtime: onnx}\n\n"
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
    num_fit_records: int
    """On which a student cut out of the teacher is fitted to it; 0: the student is fresh."""
    language: str
    """Of the answers, as ISO 639 has it; empty: not stated."""
    longest_tokens: int
    """Nearly all records, as the model reads them, are at most so long."""
    answer_tokens: int
    """Nearly all answers are at most so long."""
    max_positions: float
    """Tokens of the longest sequence that teacher and student are both made for."""
    mean_tokens: float
    """Of a record, as the model reads it."""
    entries: Mapping[str, JsonObject] = field(default_factory=dict)
    """What makes the models that are no checkpoints yet, by entry."""
    vision: VisionDraft | None = None
    """How its models read images; None where they read text alone."""
    held_out: Sequence[JsonObject] = ()
    """The sources whose split is stated, and which no model is trained on."""
    note: str = ""
    """What the recipe does not use, and why."""


def draft(findings: FileFindings, choices: DraftOptions, *, title: str) -> str:
    """A recipe that runs."""
    vision = choices.vision
    num_records = len(findings.records)
    ratio = min(MAX_HELD_OUT_RATIO, HELD_OUT_RECORDS / num_records)
    stated = [source["corpus_split"] for source in choices.held_out]
    drawn = {name: 0.0 if name in stated else ratio for name in ("validation", "test")}
    kept = 1 - sum(drawn.values())
    num_used = num_records if vision else num_records - findings.num_with_images
    steps = _count_steps(num_used * kept)
    length = LENGTH_STEP * math.ceil(choices.longest_tokens / LENGTH_STEP)
    length = int(min(max(length, LEAST_LENGTH), MOST_LENGTH, choices.max_positions))
    is_cut = choices.num_fit_records > 0 and not choices.student and not vision
    rate = PUBLISHED_RATE if choices.student else CUT_RATE if is_cut else FRESH_RATE
    is_text_of_mixed = findings.num_with_images and not vision
    sizes = f"per_device_train_batch_size: 8, gradient_accumulation_steps: 4, max_length: {length}"
    batching = f"{{{sizes}{', images: without' if is_text_of_mixed else ''}}}"
    named = scalar(choices.teacher)
    student = scalar(choices.student) if choices.student else flow(choices.fresh_student)
    readers = Readers(named, student)
    if is_cut:
        entry = _draft_cut(
            named, fresh=student, num_records=choices.num_fit_records, batching=batching
        )
        readers = Readers(named, "cut", entry)
    if vision:
        readers = draft_readers(
            vision,
            teacher=choices.teacher,
            student=choices.student or choices.fresh_student,
            max_length=length,
            image_steps=_count_steps(findings.num_with_images * kept),
            steps=steps,
        )
    return f"""\
# {title}
# `limbeck check` and `limbeck plan` say whether it can run and what it costs; `limbeck run` makes
# it and goes on where it stopped; `limbeck run --until ENTRY` makes one entry and what it needs.
{f"# {choices.note}{chr(10)}" if choices.note else ""}
{"".join(f"{name}: {flow(entry)}{chr(10)}{chr(10)}" for name, entry in choices.entries.items())}\
corpus:
  stage: prepare
  sources:
    # Texts stay as they are; `normalization: light` or `zh` on a source changes them.
{"".join(f"    - {flow(source)}{chr(10)}" for source in (*choices.held_out, choices.source))}\
  # The report asks the records of the test split.
  splits: {{validation_ratio: {drawn["validation"]:.4g}, test_ratio: {drawn["test"]:.4g}}}
  tokenizer: {"extended" if vision and not vision.teacher_reads_images else named}

{readers.entries}\
student:
  stage: distill
  student: {readers.student}
  teacher: {readers.teacher}
  corpus: corpus
  # The teacher's distribution at each token, beside the written answers.
  objective: {{kind: soft_target, temperature: 2.0, weight: 0.7}}
  batching: {batching}
  training: {{max_steps: {steps}, learning_rate: {rate:f}}}   # {PASSES} passes

int8:
  stage: quantize
  checkpoint: student
  teacher: {readers.teacher}
  corpus: corpus
  scheme: {{kind: int8}}
  objective: {{kind: soft_target}}
  batching: {batching}
  training: {{max_steps: {max(LEAST_STEPS, steps // 10)}, learning_rate: {rate / 5:f}}}

{"" if vision else BUNDLE}\
report:
  stage: evaluate
  models: [{readers.teacher}, student, int8{"" if vision else ", bundle"}]
  corpus: corpus
  questions: test
  max_questions: 200
  max_new_tokens: {min(512, max(16, choices.answer_tokens))}
{f"  language: {choices.language}" if choices.language else LANGUAGE_HINT}

# What `limbeck plan` counts with before the corpus is made: measured on some records.
plan: {{record_tokens: {min(choices.mean_tokens, length):.1f}}}
"""


def _draft_cut(teacher: str, *, fresh: str, num_records: int, batching: str) -> str:
    """The entry that cuts a student out of its teacher."""
    return f"""\
# The teacher without half of its layers and a third of its feed-forward channels; what is left is
# fitted to it, so that the student knows the language. Smaller, for many records:
# `student: {fresh}` in place of `student: cut`.
cut:
  stage: prune
  checkpoint: {teacher}
  corpus: corpus
  layers_ratio: {LAYERS_RATIO}
  channels_ratio: {CHANNELS_RATIO}
  reconstruction: {{num_records: {num_records}}}
  batching: {batching}

"""


def _count_steps(num_records: float) -> int:
    return max(LEAST_STEPS, math.ceil(PASSES * num_records / BATCH_RECORDS))
