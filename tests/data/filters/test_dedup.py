import numpy as np

from limbeck.data.filters.dedup import Duplicates, Exact, Near, jaccard

TEXT = (
    "高血压患者平时要低盐饮食，规律服药，每天监测血压，避免熬夜和情绪激动，定期到心血管内科复查。"
)


def test_exact_ignores_punctuation_and_width():
    exact = Exact()
    assert exact.find("高血压？", TEXT, id="a") == ""
    assert exact.find("高血压", TEXT.replace("，", " "), id="b") == "a"
    assert exact.find("低血压", TEXT, id="c") == ""


def test_near_finds_small_edits_only():
    near = Near(Duplicates())
    assert near.find(TEXT, id="a") == ""
    assert near.find(TEXT.replace("定期到心血管内科复查", "定期心血管内科复查"), id="b") == "a"
    assert (
        near.find("咳嗽两周不好，痰中带血，需要做胸部CT排除肺结核和肺癌，尽快去呼吸内科。", id="c")
        == ""
    )
    assert near.find("痒", id="d") == ""


def test_jaccard_of_equal_sets_is_one():
    values = np.array([1, 4, 9])
    assert jaccard(values, values) == 1.0
    assert jaccard(values, np.array([2, 3])) == 0.0
