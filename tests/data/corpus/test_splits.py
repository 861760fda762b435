import dataclasses

import pytest

from limbeck.contracts.errors import LeakError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Question, Record
from limbeck.data.corpus.splits import SplitConfig, drop_asked, split
from limbeck.data.filters.record_log import RecordLog

CONFIG = SplitConfig(validation_ratio=0.2, test_ratio=0.2)


def make(index, *, group, question=None):
    return Record(str(index), question or f"问题{index}", "回答", group, "s")


def test_a_group_stands_in_one_split_and_nothing_is_lost():
    records = [make(index, group=f"g{index % 40}") for index in range(400)]
    splits = split(records, config=CONFIG, seed=0)
    assert sorted(r.id for part in splits.values() for r in part) == sorted(r.id for r in records)
    homes = {}
    for name, part in splits.items():
        for record in part:
            assert homes.setdefault(record.group, name) == name
    assert all(splits.values())


def test_one_group_of_most_records_is_warned_of(caplog):
    chats = [make(i, group="hi" if i % 4 else f"g{i}", question="hi" * (i % 4)) for i in range(200)]
    held = {}
    for seed in range(9):
        caplog.clear()
        splits = split(chats, config=CONFIG, seed=seed)
        held[seed] = max(len(splits["test"]), len(splits["validation"]))
        assert ("begin with one question, 'hi'" in caplog.text) == (held[seed] > 100)
    assert min(held.values()) < 100 < max(held.values())


def test_groups_that_ask_the_same_are_one():
    records = [
        make(i, group=f"g{i}", question=f"同一个问题{i // 4}？" + " " * (i % 3)) for i in range(200)
    ]
    splits = split(records, config=CONFIG, seed=0)
    check_leaks(splits["train"], held_out=[*splits["validation"], *splits["test"]])


def test_a_source_that_is_a_split_stays_whole_and_is_not_asked_in_training(tmp_path):
    stated = {"exam": "test", "dev": "validation"}
    records = [make(index, group=f"g{index}") for index in range(40)]
    records += [dataclasses.replace(r, source="exam", id=f"e{r.id}") for r in records[:9]]
    records += [dataclasses.replace(make(99, group="d"), source="dev")]
    with RecordLog(tmp_path / "dropped.jsonl") as log:
        kept = list(drop_asked(records, stated=stated, log=log))
    assert len(kept) == 41 and log.total_dropped() == {"in_evaluation": 9}
    config = SplitConfig(validation_ratio=0, test_ratio=0)
    splits = split(kept, config=config, seed=0, stated=stated)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 31,
        "validation": 1,
        "test": 9,
    }
    check_leaks(splits["train"], held_out=[*splits["validation"], *splits["test"]])
    drawn = split(kept, config=CONFIG, seed=0, stated=stated)
    assert len(drawn["test"]) > 9 and {r.source for r in drawn["train"]} == {"s"}


def test_order_and_company_do_not_move_a_group():
    records = [make(index, group=f"g{index}") for index in range(100)]
    first = {r.id for r in split(records, config=CONFIG, seed=3)["test"]}
    second = {r.id for r in split(records[::-1][:50], config=CONFIG, seed=3)["test"]}
    assert second == {id for id in first if int(id) >= 50}


@pytest.mark.parametrize(
    "question",
    [
        Question("q", "recall", "高血压 有哪些症状?", ("头晕",), "list", group="other"),
        Question("q", "triage", "完全不同的说法", ("内科",), "single", group="triage|咳嗽|发热"),
    ],
)
def test_the_leak_check_fires_on_questions(question):
    train = [
        make(1, group="高血压|symptoms|0", question="高血压有哪些症状？"),
        make(2, group="triage|咳嗽|发热", question="我咳嗽、发热，看什么科？"),
    ]
    with pytest.raises(LeakError, match="share"):
        check_leaks(train, held_out=[question])


def test_the_leak_check_fires_on_held_out_records_but_not_on_plain_text():
    train = [make(1, group="a", question="头痛怎么办？"), Record("2", "", "陈述", "b", "s")]
    check_leaks(train, held_out=[Record("3", "", "陈述", "c", "s")])
    with pytest.raises(LeakError):
        check_leaks(train, held_out=[make(4, group="d", question="头痛怎么办")])
    with pytest.raises(LeakError):
        check_leaks(train, held_out=[make(5, group="a", question="别的")])
