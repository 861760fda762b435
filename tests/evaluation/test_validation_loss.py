"""Cross-entropy of held-out records, against transformers and against repeated draws."""

import dataclasses

import numpy as np
import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import read_records, write_jsonl
from limbeck.data.loading.batches import Batches, validation_batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.evaluation.metrics import ratio_of_sums
from limbeck.evaluation.validation_loss import measure_validation
from limbeck.models.batch import IGNORED


def test_the_loss_is_that_of_transformers_over_all_records(moe, corpus, tokenizer):
    config = BatchingConfig(per_device_train_batch_size=3)
    found = measure_validation(
        moe, validation_batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    )
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config, split="validation")
    total, count = 0.0, 0
    for record_id in batches.records.ids.tolist():
        batch = batches.batch([record_id])
        tokens = int((batch.labels[:, 1:] != IGNORED).sum())
        with torch.no_grad():
            total += moe(input_ids=batch.input_ids, labels=batch.labels).loss.item() * tokens
        count += tokens
    assert found["validation_loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["validation_records"] == len(batches.records)
    assert found["validation_tokens"] == count
    assert found["validation_loss_low"] < found["validation_loss"] < found["validation_loss_high"]


def test_a_corpus_without_held_out_records_has_no_loss(moe, corpus, tokenizer, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "validation.jsonl").touch()
    batches = validation_batches(Corpus(tmp_path), tokenizer=tokenizer, config=BatchingConfig())
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


def test_the_order_of_records_changes_no_score_and_batches_pad_little(
    moe, corpus, tokenizer, tmp_path
):
    records = list(read_records(corpus / "records" / "validation.jsonl"))
    longer = [dataclasses.replace(item, answer=item.answer * 4) for item in records[::3]]
    generator = np.random.default_rng(0)
    found = []
    for turn in range(3):
        folder = tmp_path / str(turn)
        (folder / "records").mkdir(parents=True)
        shown = [*records, *longer]
        order = generator.permutation(len(shown)).tolist()
        write_jsonl(folder / "records" / "validation.jsonl", [shown[place] for place in order])
        batches = list(
            validation_batches(
                Corpus(folder),
                tokenizer=tokenizer,
                config=BatchingConfig(per_device_train_batch_size=3, select="all"),
            )
        )
        found.append(measure_validation(moe, batches))
        lengths = [int(length) for batch in batches for length in batch.tokens.sum(dim=1)]
        assert lengths == sorted(lengths)
        held = Batches(
            Corpus(folder),
            tokenizer=tokenizer,
            split="validation",
            config=BatchingConfig(per_device_train_batch_size=3, select="all"),
        )
        plain = [
            held.batch(list(range(first, first + 3)))
            for first in range(0, len(held.records) - 2, 3)
        ]
        assert padding(batches) < padding(plain)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def padding(batches):
    """The share of padded tokens."""
    tokens = torch.cat([batch.tokens.reshape(-1) for batch in batches])
    return 1 - float(tokens.float().mean())
