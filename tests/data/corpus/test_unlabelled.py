"""Questions without answers: which they are, and that no evaluation asks them."""

from limbeck.contracts.records import Entity, Question, Record
from limbeck.data.corpus.unlabelled import (
    describe_unlabelled,
    keep_new,
    remove_answer,
    withhold_answers,
)
from limbeck.data.filters.record_log import RecordLog


def record(number, *, question=None, answer="热", group=None, **fields):
    asked = f"第{number}个问题怎么办？" if question is None else question
    name = str(number) if group is None else group
    return Record(str(number), asked, answer, name, "test", **fields)


def test_a_groups_answers_are_kept_or_withheld_together(tmp_path):
    records = [
        record(n, group=str(n // 4), question="" if n % 4 == 3 else None) for n in range(800)
    ]
    shares = {}
    for ratio in (0.1, 0.4, 1.0):
        with RecordLog(tmp_path / "dropped.jsonl") as log:
            labelled, bare = withhold_answers(records, labelled_ratio=ratio, seed=0, log=log)
        groups = {item.group for item in labelled}
        assert groups.isdisjoint({item.group for item in bare})
        assert {item.answer for item in bare} <= {""} and all(item.question for item in bare)
        # Of a withheld group, the plain text that states its answer is left out, and counted.
        dropped = log.total_dropped()["withheld"]
        assert dropped == len(records) - len(labelled) - len(bare) == 200 - len(groups)
        shares[ratio] = groups
        assert abs(len(groups) - 200 * ratio) < 20
    assert shares[0.1] < shares[0.4] < shares[1.0]


def test_nothing_of_the_answer_is_left():
    marked = (Entity("热", "x", 0, "answer"), Entity("第", "x", 0, "question"))
    found = remove_answer(record(1, rejected="冷", entities=marked))
    assert (found.answer, found.rejected, found.entities) == ("", "", marked[1:])


def test_only_new_questions_stay(tmp_path):
    asked = Question("q", "recall", "谁问了？", ("我",), "single", group="intent|尿酸高")
    with RecordLog(tmp_path / "dropped.jsonl") as log:
        kept = keep_new(
            [
                record(1, answer=""),
                record(2, question="第 1 个问题,怎么办", answer=""),
                record(3, question="谁 问 了", answer=""),
                record(4, question="意图：尿酸高？", group="intent|尿酸高", answer=""),
                record(5, question="第9个问题怎么办", answer=""),
                record(6, question="验证一", answer=""),
                record(7, answer=""),
            ],
            labelled=[record(9)],
            held_out=[asked, record(8, question="验证一？")],
            log=log,
        )
    assert [item.id for item in kept] == ["1", "7"]
    assert log.total_dropped() == {"in_evaluation": 3, "duplicate": 2}


def test_how_near_they_lie_to_evaluation_is_reported():
    asked = [
        Question(str(n), "t", text, ("a",), "single")
        for n, text in enumerate(("甲乙丙丁", "子丑寅卯"))
    ]
    near, far = record(1, question="甲乙丙戊"), record(2, question="天地玄黄")
    found = describe_unlabelled([near, far], labelled=[far], questions=asked)
    # Two of the first question's three pairs, of four in both; of the second, none.
    assert found["nearest_to_evaluation"] == {"10": 0.05, "50": 0.25, "90": 0.45}
    assert found["labelled_nearest_to_evaluation"] == {"10": 0.0, "50": 0.0, "90": 0.0}
    assert describe_unlabelled([near], labelled=[], questions=[]) == {
        "questions": 1,
        "nearest_to_evaluation": {},
        "labelled_nearest_to_evaluation": {},
    }
