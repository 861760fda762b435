"""What a teacher's chat template refuses, and whether it thinks, is known when data is prepared."""

import json

import pytest
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work, read_artifact
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.contracts.records import read_records
from limbeck.data.loading.chat_template import render_records
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages.config.prepare import Config
from tests.support.byte_level_tokenizer import train_byte_level

SWITCHED = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def prepare(tmp_path):
    def prepare(template, *, num_system=0, **settings):
        tokenizer = train_byte_level(["what is it, no yes"] * 3, num_tokens=300)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path / "teacher")
        rows = [
            {
                "messages": [
                    *([{"role": "system", "content": "Be brief."}] if n < num_system else []),
                    {"role": "user", "content": f"what is {n}?"},
                    {"role": "assistant", "content": f"it is {n}"},
                ]
            }
            for n in range(40)
        ]
        path = tmp_path / "chat.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"kind": "jsonl", "path": str(path), **settings.pop("source", {})}
        config = Config.model_validate(
            {"stage": "prepare", "sources": [source], "tokenizer": str(tmp_path / "teacher")}
            | settings
        )
        teacher = (read_artifact(tmp_path / "teacher"),)
        work = Work("corpus", tmp_path / "corpus", tmp_path / "state", {"tokenizer": teacher})
        work.folder.mkdir()
        return work.folder, config.run(work=work)

    return prepare


@pytest.mark.parametrize(
    ("setting", "begins"), [("default", ""), ("on", ""), ("off", "<think></think>")]
)
def test_thinking_is_set_once_for_every_model(prepare, setting, begins):
    folder, _ = prepare(SWITCHED, enable_thinking=setting)
    tokenizer = load_tokenizer(folder / "tokenizer")
    record = next(read_records(folder / "records" / "train.jsonl"))
    (rendered,) = render_records(tokenizer, [record])
    given = tokenizer.decode(rendered.input_ids[: rendered.answer_start])
    assert given.endswith(f"<assistant>{begins}")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": record.question}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == given


def test_a_template_without_the_switch_refuses_it(prepare):
    with pytest.raises(CheckpointError, match="no switch 'enable_thinking'"):
        prepare(STRICT, enable_thinking="off")
    with pytest.raises(ValidationError, match="a switch of a teacher's chat template"):
        Config.model_validate(
            {
                "stage": "prepare",
                "sources": [{"kind": "jsonl", "path": "x.jsonl"}],
                "enable_thinking": "off",
            }
        )


def test_what_a_template_refuses_is_dropped_counted_and_stops_where_it_is_much(prepare, tmp_path):
    with pytest.raises(DataError, match=r"refused_by_template"):
        prepare(STRICT, num_system=20)


def test_a_little_that_a_template_refuses_is_counted(prepare):
    folder, _ = prepare(STRICT, num_system=1)
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert [item["reason"] for item in dropped] == ["refused_by_template"]
    assert "no system role" in dropped[0]["detail"]
