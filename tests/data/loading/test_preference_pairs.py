"""The split `rl` shares no question with `sft`; worse answers are wrong ones."""

import numpy as np
import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Question, Record, write_jsonl
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.preference_pairs import PreferenceBatches
from limbeck.data.packs.fact_questions import FactsConfig
from limbeck.data.readers.jsonl import Config as Jsonl
from limbeck.data.readers.pack_facts import Config

SETTINGS = {"rl_unknown_ratio": 0.35, "facts": FactsConfig(rl_forms=1)}


@pytest.fixture(scope="module")
def splits(pack):
    found = {}
    for split in ("sft", "rl"):
        config = Config(split=split, preferences="plausible", **SETTINGS)
        items = list(config.read(pack=pack, seed=0))
        found[split] = [[i for i in items if isinstance(i, kind)] for kind in (Record, Question)]
    return found


def test_the_splits_share_questions_to_ask_and_none_to_learn(splits):
    (sft, asked), (rl, asked_too) = splits["sft"], splits["rl"]
    assert asked == asked_too
    check_leaks(rl, held_out=[*(item for item in sft if item.question), *asked])
    assert rl and all(record.question for record in rl)


def test_unknown_names_are_divided(pack, splits):
    unknown = pack.description.unknown
    names = {
        split: {
            record.group.split("|")[0]
            for record in records
            if record.answer == pack.description.unknown_answer
        }
        for split, (records, _) in splits.items()
    }
    assert names["sft"] | names["rl"] == set(unknown.train)
    assert names["sft"].isdisjoint(names["rl"])
    assert len(names["rl"]) == round(0.35 * len(unknown.train))


def test_every_fact_is_asked_in_another_form(pack, splits):
    facts = {tuple(r.group.split("|")[:2]) for r in splits["sft"][0] if "|" in r.group}
    for name in pack.subjects:
        assert (name, "symptoms") in facts
    rl = [record for record in splits["rl"][0] if record.group.count("|") == 2]
    forms = {record.group for record in splits["sft"][0]}
    assert forms.isdisjoint(record.group for record in rl)


def test_worse_answers_are_plausible_and_wrong(pack, splits):
    joiner, unknown = pack.description.joiner, pack.description.unknown_answer
    pairs = [record for record in splits["rl"][0] if record.rejected]
    wrong_refusals = [record for record in pairs if record.rejected == unknown]
    assert 0.1 < len(wrong_refusals) / len(pairs) < 0.3
    relations = {
        pack.items(name, relation)
        for name in pack.subjects
        for relation in pack.description.relations
    }
    for record in pairs:
        assert record.answer != unknown or record.rejected != unknown
        if record.rejected != unknown:
            items = tuple(record.rejected.split(joiner))
            assert items in relations
            assert set(items).isdisjoint(record.answer.split(joiner))


def test_a_column_holds_the_rejected_answer(pack, tmp_path):
    rows = [
        {"question": "头晕怎么办？", "answer": "请先量血压。", "rejected": "没事。"},
        {"question": "发热怎么办？", "answer": "请先量体温。"},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    read = Jsonl(path=tmp_path / "rows.jsonl").read(pack=pack, seed=0)
    assert [item.rejected for item in read if isinstance(item, Record)] == ["没事。", ""]


def write_corpus(folder, tokenizer, *, rejected):
    (folder / "records").mkdir(parents=True)
    records = [
        Record(
            str(n),
            "高血压看什么科？",
            "心血管内科" + "、头晕" * n,
            str(n),
            "test",
            rejected="皮肤科" if rejected and n % 2 else "",
        )
        for n in range(6)
    ]
    write_jsonl(folder / "records" / "train.jsonl", records)
    return folder


def test_pairs_are_the_better_rows_and_then_the_worse(tmp_path, tokenizer):
    corpus = write_corpus(tmp_path / "c", tokenizer, rejected=True)
    config = BatchingConfig(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    pairs = PreferenceBatches(Corpus(corpus), tokenizer=tokenizer, config=config)
    seen = []
    for batch in pairs(0):
        half = len(batch.record_ids) // 2
        assert batch.record_ids[:half].tolist() == batch.record_ids[half:].tolist()
        for better, worse in zip(batch.input_ids[:half], batch.input_ids[half:], strict=True):
            texts = [tokenizer.decode(row, skip_special_tokens=True) for row in (better, worse)]
            assert texts[0].startswith("高血压看什么科？心血管内科、头晕")
            assert texts[1] == "高血压看什么科？皮肤科"
        assert torch_equal_tokens(batch)
        seen += batch.record_ids[:half].tolist()
    assert len(seen) == 4
    assert pairs.count_tokens(3) == pytest.approx(3 * pairs.tokens_per_step, rel=0.2)


def torch_equal_tokens(batch):
    learnt = batch.labels != -100
    return bool((batch.labels[learnt] == batch.input_ids[learnt]).all())


def test_a_corpus_without_preferences_is_refused(tmp_path, tokenizer):
    corpus = write_corpus(tmp_path / "c", tokenizer, rejected=False)
    with pytest.raises(DataError, match="preferences: plausible"):
        PreferenceBatches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig())


def test_counted_tokens_are_those_of_the_batches(corpus, tokenizer):
    config = BatchingConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, select="all"
    )
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    for steps in (1, 3, 7):
        seen = sum(int(batch.tokens.sum()) for step in range(steps) for batch in batches(step))
        assert batches.records.count_tokens(steps) == seen
    whole = np.mean([batches.records.count_tokens(600) / 600])
    assert batches.records.tokens_per_step == pytest.approx(whole, rel=0.01)
