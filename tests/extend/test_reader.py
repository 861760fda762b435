"""The reader of the page feeds the stage `prepare`: one module, one line."""

import pytest

from limbeck.contracts.artifacts import Work
from limbeck.contracts.records import read_records
from limbeck.contracts.registry import READERS
from limbeck.stages import prepare


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(READERS, "markdown_faq", "docs.extend.examples.reader:Config")


def test_it_feeds_the_stage(tmp_path):
    text = "".join(f"## 问题{n}是什么？\n\n这是第{n}个问题的答案。\n\n" for n in range(40))
    (tmp_path / "faq.md").write_text("preamble\n" + text, encoding="utf-8")
    folder, state = tmp_path / "artifact", tmp_path / "state"
    for path in (folder, state):
        path.mkdir()
    config = prepare.Config.model_validate(
        {
            "stage": "prepare",
            "pack": "medical",
            "sources": [{"kind": "markdown_faq", "path": tmp_path / "faq.md"}],
            "filters": [],
            "tokenizer": {"min_count": 1},
        }
    )
    prepare.run(config, work=Work("corpus", folder, state))
    records = [
        record
        for split in ("train", "validation", "test")
        for record in read_records(folder / "records" / f"{split}.jsonl")
    ]
    assert len(records) == 40
    assert {record.answer for record in records} == {f"这是第{n}个问题的答案。" for n in range(40)}
