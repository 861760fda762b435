"""Checking a recipe: every fault at once, each with its line and its path; and the order."""

import pytest
import yaml

from limbeck.contracts.errors import RecipeError, UnknownNameError
from limbeck.contracts.recipe import load_recipe
from limbeck.pipeline.check import check as check_recipe
from limbeck.pipeline.entry import select_needed
from tests.support.tiny_checkpoints import make_checkpoint

CORPUS = "corpus: {stage: prepare, pack: medical, sources: [{kind: knowledge}]}\n"
MODEL = (
    "{kind: dense, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, "
    "num_key_value_heads: 1, head_dim: 8, intermediate_size: 32}"
)
TRAIN = f"  stage: train\n  corpus: corpus\n  model: {MODEL}\n  objective: {{kind: next_token}}\n"


def load(tmp_path, text, *overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, overrides=overrides)


def faults(tmp_path, text, *overrides):
    with pytest.raises(RecipeError) as caught:
        check_recipe(load(tmp_path, text, *overrides))
    assert str(caught.value).startswith(str(tmp_path / "recipe.yaml"))
    return {fault.where: (fault.line, fault.message) for fault in caught.value.faults}


def test_order_follows_references(tmp_path):
    text = (
        "b: {stage: train, corpus: corpus, model: a, objective: {kind: next_token}, "
        "training: {max_steps: 1}}\n"
        f"a:\n{TRAIN}  training: {{max_steps: 1}}\n{CORPUS}"
    )
    entries = check_recipe(load(tmp_path, text))
    assert list(entries) == ["corpus", "a", "b"]
    assert [(item.field, item.target) for item in entries["b"].references] == [
        ("corpus", "corpus"),
        ("model", "a"),
    ]


def test_an_entry_is_made_with_all_that_it_needs_and_nothing_else(tmp_path):
    text = (
        "b: {stage: train, corpus: corpus, model: a, objective: {kind: next_token}, "
        "training: {max_steps: 1}}\n"
        f"a:\n{TRAIN}  training: {{max_steps: 1}}\n"
        f"c:\n{TRAIN}  training: {{max_steps: 1}}\n{CORPUS}"
    )
    entries = check_recipe(load(tmp_path, text))
    assert list(select_needed(entries, ["b"])) == ["corpus", "a", "b"]
    assert list(select_needed(entries, ["c"])) == ["corpus", "c"]
    assert list(select_needed(entries, ["corpus"])) == ["corpus"]
    with pytest.raises(UnknownNameError, match=r"unknown entry 'corpse': did you mean 'corpus'\?"):
        select_needed(entries, ["corpse"])


def test_every_fault_at_once(tmp_path):
    text = (
        f"{CORPUS}"
        f"one:\n{TRAIN}  training: {{max_steps: 0}}\n  sead: 3\n"
        f"two:\n{TRAIN.replace('corpus: corpus', 'corpus: corpse')}  training: {{max_steps: 1}}\n"
        "three: {stage: trian}\n"
        "four: {corpus: corpus}\n"
    )
    found = faults(tmp_path, text)
    assert {where: line for where, (line, _) in found.items()} == {
        "one.training.max_steps": 7,
        "one.sead": 8,
        "two.corpus": 11,
        "three.stage": 15,
        "four": 16,
    }
    assert list(found) == sorted(found, key=lambda where: found[where][0])
    assert found["one.training.max_steps"][1] == "Input should be greater than 0; found 0"
    assert found["one.sead"][1] == "unknown key 'sead': did you mean 'seed'?"
    assert "did you mean 'corpus'? known: corpus, four, one" in found["two.corpus"][1]


@pytest.mark.parametrize(
    ("entry", "where", "message"),
    [
        ("stage: trian", "x.stage", "unknown stage 'trian': did you mean 'train'?"),
        ("corpus: corpus", "x", "needs a key 'stage', one of prepare, train"),
        ("stage: [train]", "x", "needs a key 'stage'"),
        ("stage: train", "x.corpus", "is required and missing"),
        (TRAIN + "  training: {max_steps: four}", "x.training.max_steps", "found 'four'"),
        (
            TRAIN + "  training: {max_steps: 1, learning_rate: -1}",
            "x.training.learning_rate",
            "greater than 0; found -1",
        ),
        (TRAIN + "  training: 3", "x.training", "found 3"),
        (TRAIN + "  training: {max_steps: 1, stps: 2}", "x.training.stps", "unknown key 'stps'"),
        (
            TRAIN.replace("hidden_size: 16", "hidden_size: 15"),
            "x.model.hidden_size",
            "multiple of 4; found 15",
        ),
        (TRAIN.replace("hidden_size: 16", "hiden: 16"), "x.model.hiden", "unknown key 'hiden'"),
        (TRAIN.replace("dense", "dens"), "x.model", "unknown model 'dens': did you mean 'dense'?"),
        (TRAIN.replace("next_token", "soft_target"), "x", "needs a `teacher`"),
        (TRAIN.replace("corpus: corpus", "corpus: x"), "x.corpus", "makes a checkpoint"),
        (TRAIN.replace("corpus: corpus", "corpus: /"), "x.corpus", "no manifest.json"),
        (TRAIN.replace("corpus: corpus", f"corpus: {'c' * 5000}"), "x.corpus", "unknown entry"),
        (
            "stage: prepare\n  pack: medicl\n  sources: [{kind: knowledge}]",
            "x",
            "unknown pack 'medicl': did you mean 'medical'?",
        ),
        ("stage: prepare\n  pack: medical\n  sources: []", "x.sources", "at least 1 item"),
        (
            "stage: prepare\n  pack: medical\n  sources: [{kind: knowledge},"
            " {kind: csv, path: x.}]",
            "x.sources.1.path",
            "reads 'x.', which does not exist",
        ),
        (
            "stage: prepare\n  sources: [{kind: csv, path: /dev/null}]",
            "x.sources.0.path",
            "reads '/dev/null', which is a pipe or a device",
        ),
        (
            "stage: prepare\n  pack: medical\n  sources: [{kind: knowledge}, {kind: knowledge}]",
            "x",
            "two sources are called 'knowledge'",
        ),
        ("stage: evaluate\n  models: []\n  corpus: corpus", "x.models", "at least 1 item"),
        (
            "stage: evaluate\n  models: [corpus]\n  corpus: corpus",
            "x.models",
            "'corpus' makes a corpus, wanted a checkpoint or bundle",
        ),
    ],
)
def test_fault(tmp_path, entry, where, message):
    if "training:" not in entry and entry.startswith("  stage: train"):
        entry += "  training: {max_steps: 1}"
    found = faults(tmp_path, f"{CORPUS}x:\n  {entry.strip()}\n")
    assert where in found, found
    line, text = found[where]
    assert message in text
    assert line >= 2


def test_settings_in_place_of_a_name_are_faulty_as_settings(tmp_path):
    """A corpus names a tokenizer, or says how to make one."""
    entry = CORPUS.rstrip().removesuffix("}") + ", tokenizer: {kind: bpe, num_merge: 4}}\n"
    found = faults(tmp_path, entry)
    assert set(found) == {"corpus.tokenizer.kind", "corpus.tokenizer.num_merge"}
    assert "did you mean 'num_merges'?" in found["corpus.tokenizer.num_merge"][1]


def test_circle(tmp_path):
    train = (
        "{{stage: train, corpus: corpus, model: {}, objective: {{kind: next_token}}, "
        "training: {{max_steps: 1}}}}"
    )
    text = f"{CORPUS}a: {train.format('b')}\nb: {train.format('a')}\n"
    assert faults(tmp_path, text) == {"a": (2, "entries feed each other in a circle: ['a', 'b']")}


def test_override_has_no_line(tmp_path):
    found = faults(tmp_path, f"{CORPUS}", "corpus.near.threshold=many")
    ((line, _),) = found.values()
    assert line in (0, 1)


def test_hub_names_are_left_to_the_run(tmp_path):
    text = f"{CORPUS}x:\n{TRAIN.replace(MODEL, 'someone/some-model')}  training: {{max_steps: 1}}\n"
    assert list(check_recipe(load(tmp_path, text))) == ["corpus", "x"]


GRPO = """
corpus: {stage: prepare, sources: [{kind: jsonl, path: %s}]}
tuned:
  stage: train
  corpus: corpus
  model: base
  objective: {kind: grpo, rewards: {%s}}
  training: {max_steps: 1, learning_rate: 0.1}
base:
  stage: train
  corpus: corpus
  model: {kind: dense, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1,
    num_key_value_heads: 1, head_dim: 8, intermediate_size: 8}
  objective: {kind: next_token}
  training: {max_steps: 1, learning_rate: 0.1}
"""


def test_rewards_that_need_a_domain_are_refused_for_a_corpus_without_a_pack(tmp_path):
    data = tmp_path / "own.jsonl"
    data.write_text('{"question": "a", "answer": "b"}\n')
    path = tmp_path / "own.yaml"
    path.write_text(GRPO % (data, "facts: 1.0, brevity: 0.1"))
    assert set(check_recipe(load_recipe(path))) == {"corpus", "tuned", "base"}
    path.write_text(GRPO % (data, "facts: 1.0, form: 0.1"))
    with pytest.raises(RecipeError, match="reward 'form' needs the domain of a pack, and 'corpus'"):
        check_recipe(load_recipe(path))


def test_a_choice_of_questions_needs_a_corpus_that_has_some_without_answers(tmp_path):
    data = tmp_path / "own.jsonl"
    data.write_text('{"question": "a", "answer": "b"}\n')
    make_checkpoint(tmp_path / "teacher")
    path = tmp_path / "own.yaml"

    def write(**fields):
        entries = {
            "corpus": {"stage": "prepare", "sources": [{"kind": "jsonl", "path": str(data)}]}
            | fields,
            "transfer": {
                "stage": "label",
                "corpus": "corpus",
                "teacher": str(tmp_path / "teacher"),
                "choose": {"kind": "random", "max_questions": 5},
            },
        }
        path.write_text(yaml.safe_dump(entries))
        return load_recipe(path)

    with pytest.raises(RecipeError, match="'random' needs questions without answers, and 'corpus'"):
        check_recipe(write())
    questions = {"kind": "questions", "name": "bare", "path": str(data)}
    for fields in ({"labelled_ratio": 0.5}, {"sources": [questions]}):
        assert set(check_recipe(write(**fields))) == {"corpus", "transfer"}
