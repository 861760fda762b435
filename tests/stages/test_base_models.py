"""A base model, whose tokenizer has no chat template, goes through every stage with one."""

import json

import pytest
from transformers import AutoTokenizer

from limbeck.contracts.artifacts import Work, plain_checkpoint
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.recipe import load_recipe
from limbeck.data.loading.chat_template import render_records
from limbeck.models.chat import NO_TEMPLATE, PLAIN_TEMPLATE
from limbeck.models.checkpoints import load_model
from limbeck.models.tokenizers import load_reader, load_tokenizer
from limbeck.pipeline.check import check
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.transformers import open_chat
from limbeck.stages.config.export import Config as Export
from limbeck.stages.config.prepare import Config as Prepare
from limbeck.stages.config.train import Config as Train
from tests.support.published_checkpoints import STUDENTS, make_checkpoint

OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}|{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant|{% endif %}"
)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1?"},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "And 2?"},
]


@pytest.fixture
def base(tmp_path):
    """A checkpoint without a chat template."""
    folder = make_checkpoint(tmp_path / "base", build=STUDENTS["llama"])
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture
def make(tmp_path, base):
    """The folder of an entry made with the corpus and perhaps a checkpoint."""
    rows = [{"question": f"what is {n}?", "answer": f"it is {n}"} for n in range(40)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def artifact(folder):
        return plain_checkpoint(folder, files={}, content_hash="0")

    def make(name, config, **inputs):
        folder = tmp_path / name
        folder.mkdir()
        work = Work(
            name,
            folder,
            tmp_path / f"{name}-state",
            {field: (artifact(path),) for field, path in inputs.items()},
        )
        work.state.mkdir()
        config.run(work=work)
        return folder

    def corpus(**settings):
        value = {"stage": "prepare", "tokenizer": str(base)} | settings
        source = {"kind": "jsonl", "path": str(path)}
        config = Prepare.model_validate(value | {"sources": [source]})
        return make("corpus", config, tokenizer=base)

    make.corpus = corpus
    return make


TRAIN = {
    "stage": "train",
    "corpus": "corpus",
    "model": "base",
    "objective": {"kind": "next_token"},
    "batching": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1},
    "training": {"max_steps": 1},
}


def test_the_plain_template_marks_answers_alone(base):
    tokenizer = load_tokenizer(base)
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert text == (
        "System:\nBe brief.\n\nUser:\nWhat is 1?\n\nAssistant:\nOne.<|im_end|>\n\n"
        "User:\nAnd 2?\n\nAssistant:\n"
    )
    turns = [*TURNS, {"role": "assistant", "content": "Two."}]
    encoded = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    learnt = tokenizer.decode([token for token, kept in pairs if kept])
    assert learnt == "One.<|im_end|>Two.<|im_end|>"
    tokenizer.bos_token = "<|im_start|>"
    begun = tokenizer.apply_chat_template(TURNS[1:2], tokenize=False)
    assert begun == "<|im_start|>User:\nWhat is 1?\n\n"


def test_a_base_model_is_trained_answers_and_is_exported(make, base):
    corpus = make.corpus()
    trained = make("trained", Train.model_validate(TRAIN), corpus=corpus, model=base)
    assert AutoTokenizer.from_pretrained(trained).chat_template == PLAIN_TEMPLATE
    export = Export(stage="export", checkpoint="trained")
    bundle = make("bundle", export, checkpoint=trained)
    chats = [read_chat(bundle), open_chat(base, model=load_model(base))]
    assert len({chat.template.render([]) for chat in chats}) == 1
    assert {chat.end_ids for chat in chats} == {(2,)}
    raw = make(
        "raw", Export(stage="export", checkpoint="base", runtime="transformers"), checkpoint=base
    )
    assert read_chat(raw).template.end == "<|im_end|>"


def test_a_recipe_states_its_own_template(make, base, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(OWN)
    corpus = make.corpus(chat_template=str(path))
    trained = make("trained", Train.model_validate(TRAIN), corpus=corpus, model=base)
    assert AutoTokenizer.from_pretrained(trained).chat_template == OWN
    # A model with a template of its own reads this corpus by the stated one, too.
    AutoTokenizer.from_pretrained(trained).save_pretrained(base)
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    reader = load_reader(base, corpus=Corpus(corpus))
    assert reader.chat_template == OWN
    record = next(iter(Corpus(corpus).records("train")))
    (rendered,) = render_records(reader, [record])
    assert "user|what is" in reader.decode(rendered.input_ids)


@pytest.mark.parametrize("stated", [False, True])
def test_check_names_which_template_a_base_model_gets(base, tmp_path, stated):
    (tmp_path / "own.jinja").write_text(OWN)
    own = f", chat_template: {tmp_path}/own.jinja" if stated else ""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"corpus: {{stage: prepare, pack: medical, sources: [{{kind: knowledge}}], "
        f"tokenizer: {base}{own}}}\n"
        "t: {stage: train, corpus: corpus, model: "
        f"{base}, objective: {{kind: next_token}}, training: {{max_steps: 1}}}}\n"
    )
    notes = []
    check(load_recipe(path), note=notes.append)
    assert notes == ([] if stated else [f"{base} {NO_TEMPLATE}"])


def test_a_stated_template_that_renders_nothing_is_refused(base, tmp_path):
    (tmp_path / "own.jinja").write_text("{% for")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"corpus: {{stage: prepare, pack: medical, sources: [{{kind: knowledge}}], "
        f"tokenizer: {base}, chat_template: {tmp_path}/own.jinja}}\n"
    )
    with pytest.raises(Exception, match=r"line 1: corpus.chat_template: .*own.jinja"):
        check(load_recipe(path))
