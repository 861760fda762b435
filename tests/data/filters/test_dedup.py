from pathlib import Path

import numpy as np
import pytest

from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Record, Source
from limbeck.data.filters.base import FilterContext
from limbeck.data.filters.dedup import Duplicates, Exact, Near, jaccard
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.record_log import RecordLog
from tests.support.medical_pack import medical_pack

TEXT = (
    "高血压患者平时要低盐饮食，规律服药，每天监测血压，避免熬夜和情绪激动，定期到心血管内科复查。"
)


def test_exact_ignores_punctuation_and_width():
    exact = Exact()
    assert exact.find("高血压？", TEXT, id="a") == ""
    assert exact.find("高血压", TEXT.replace("，", " "), id="b") == "a"
    assert exact.find("低血压", TEXT, id="c") == ""
    assert exact.find("👍", TEXT, id="d") == exact.find("👎", TEXT, id="e") == ""


def test_near_finds_small_edits_only():
    near = Near(Duplicates())
    assert near.find(TEXT, id="a") == ""
    assert near.find(TEXT.replace("定期到心血管内科复查", "定期心血管内科复查"), id="b") == "a"
    assert (
        near.find("咳嗽两周不好，痰中带血，需要做胸部CT排除肺结核和肺癌，尽快去呼吸内科。", id="c")
        == ""
    )
    assert near.find("痒", id="d") == ""


@pytest.mark.parametrize(
    ("old", "new"), [("5mg", "50mg"), ("2.5mg", "25mg"), ("可以", "不可以"), ("can", "can't")]
)
def test_another_number_or_a_negation_makes_another_text(old, new):
    near = Near(Duplicates(min_similarity_ratio=0.5))
    assert near.find(f"{TEXT}{old}{TEXT[::-1]}", id="a") == ""
    assert near.find(f"{TEXT}{new}{TEXT[::-1]}", id="b") == ""
    assert near.find(f"{TEXT}{old}，{TEXT[::-1]}呀", id="c") == "a"


def test_jaccard_of_equal_sets_is_one():
    values = np.array([1, 4, 9])
    assert jaccard(values, values) == 1.0
    assert jaccard(values, np.array([2, 3])) == 0.0


def run_filter(*records, **settings):
    """The records that stay, and the reasons for which others go."""
    with RecordLog(Path("/dev/null")) as log:
        context = FilterContext(
            pack=medical_pack(),
            lexicon=Lexicon({}),
            sources={"a": Source("a", True, 100)},
            questions=(),
            seed=0,
            log=log,
        )
        kept = list(Duplicates(**settings).run(records, context=context))
    return [record.id for record in kept], dict(log.total_dropped())


def make(id, **fields):
    fields = {"question": "高血压平时怎么办", "answer": TEXT, **fields}
    return Record(id=id, group="g", source="a", **fields)


def test_other_worse_answers_make_other_pairs():
    worse = ["不管", "吃盐", "喝酒"]
    pairs = [make(f"{number}", rejected=text) for number, text in enumerate(worse)]
    assert run_filter(*pairs) == (["0", "1", "2"], {})
    assert run_filter(pairs[0], make("x", rejected="不管！")) == (["0"], {"duplicate": 1})
    assert run_filter(make("a", rejected=TEXT), pairs[0]) == (["0"], {"equal_sides": 1})


def test_other_instructions_make_other_records():
    same = [make("0", system="只说一句"), make("1", system="只说两句"), make("2")]
    assert run_filter(*same) == (["0", "1", "2"], {})
    edited = TEXT.replace("定期到心血管内科复查", "定期心血管内科复查")
    near = make("3", system="只说一句", answer=edited)
    assert run_filter(same[0], near, nearly_equal="drop") == (["0"], {"near_duplicate": 1})
    assert run_filter(same[1], near, nearly_equal="drop") == (["1", "3"], {})


def test_candidates_of_the_tables_below_the_threshold_stay():
    """The hash tables only guess: here they name a text that is 0.89 like another, 0.95 asked."""
    edited = TEXT.replace("定期到心血管内科复查", "定期到心血管内科来复查")
    near = Near(Duplicates(min_similarity_ratio=0.95))
    assert near.find(TEXT, id="a") == ""
    values = [near._hash_shingles(normalise(text)) for text in (TEXT, edited)]
    sketch = near._blank.copy()
    sketch.update_batch(values[1].tolist())
    assert list(near._lsh.query(sketch)) == ["a"] and 0.85 < jaccard(*values) < 0.95
    assert near.find(edited, id="b") == ""
    records = [make("a"), make("b", answer=edited)]
    settings = {"nearly_equal": "drop", "min_similarity_ratio": 0.95}
    assert run_filter(*records, **settings) == (["a", "b"], {})


@pytest.mark.parametrize("ratio", [0.001, 0.5, 0.86, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("count", [16, 48, 256])
def test_every_threshold_that_is_allowed_works(ratio, count):
    settings = {"min_similarity_ratio": ratio, "num_permutations": count}
    other = TEXT[:30] + "另外" + TEXT[30:]
    values = [Near(Duplicates())._hash_shingles(normalise(text)) for text in (TEXT, other)]
    near = Near(Duplicates(**settings))
    assert near.find(TEXT, id="a") == ""
    assert near.find(TEXT + "。", id="b") == "a"
    assert near.find(other, id="c") == ("a" if jaccard(*values) >= ratio else "")
