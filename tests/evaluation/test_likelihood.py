"""Cross-entropy of held-out records, against transformers and against repeated draws."""

import numpy as np
import pytest
import torch

from limbeck.data.batching import Batches, BatchingConfig, held_out_batches
from limbeck.evaluation.likelihood import measure_validation, ratio_of_sums
from limbeck.models.batch import IGNORED


def test_the_loss_is_that_of_transformers_over_all_records(moe, corpus, tokenizer):
    config = BatchingConfig(batch_records=3)
    found = measure_validation(
        moe, held_out_batches(corpus, tokenizer=tokenizer, config=config)
    )  # fmt: skip
    batches = Batches(corpus, tokenizer=tokenizer, config=config, split="validation")
    total, count = 0.0, 0
    for index in range(len(batches)):
        batch = batches.batch([index])
        tokens = int((batch.labels[:, 1:] != IGNORED).sum())
        with torch.no_grad():
            total += moe(input_ids=batch.input_ids, labels=batch.labels).loss.item() * tokens
        count += tokens
    assert found["validation_loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["validation_records"] == len(batches)
    assert found["validation_tokens"] == count
    assert found["validation_loss_low"] < found["validation_loss"] < found["validation_loss_high"]


def test_a_corpus_without_held_out_records_has_no_loss(moe, corpus, tokenizer, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "validation.jsonl").touch()
    batches = held_out_batches(tmp_path, tokenizer=tokenizer, config=BatchingConfig())
    assert measure_validation(moe, batches) == {}


def test_the_interval_holds_the_true_ratio_about_95_times_in_100():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        counts = rng.integers(1, 20, size=200)
        level = rng.normal(2.0, 0.5, size=200)
        found = ratio_of_sums(sums=level * counts, counts=counts)
        held += found.low <= 2.0 <= found.high
    assert 0.92 <= held / 400 <= 0.98
