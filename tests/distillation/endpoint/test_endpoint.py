"""Learning from a model behind a server, from end to end, with a tiny model behind a real one."""

import json
import shutil

import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError
from limbeck.contracts.recipe import Recipe, load_recipe
from limbeck.contracts.records import read_records
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.endpoint.token_alignment import NO_MASS
from limbeck.distillation.teachers.endpoint import EndpointTeacher
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.models.checkpoints import load_model
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.config import Needs
from limbeck.pipeline.run import run as run_recipe
from tests.support import tiny_recipe
from tests.support.endpoint_server import Speaker, serving
from tests.support.published_checkpoints import STUDENTS, make_checkpoint

SOURCES = (
    "corpus.sources=[{kind: knowledge, max_records: 16, "
    "classification: {train_sets: 0, questions: 0, held_out_sets: 0}, "
    "refusals: 1, refusal_questions: 2, facts: {forms_per_fact: 1, "
    "statements_per_fact: 0, recall_questions: 4, choice_questions: 4}}]"
)
FEW = (
    "batching={per_device_train_batch_size: 4, gradient_accumulation_steps: 1, max_length: 128}",
    "training={max_steps: 2, learning_rate: 0.01, warmup_steps: 1}",
)
TOP = 20
NUM_TOKENS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "qwen3", build=STUDENTS["qwen3"])


@pytest.fixture(scope="module")
def server(checkpoint):
    speaker = Speaker(load_model(checkpoint), load_tokenizer(checkpoint), num_tokens=NUM_TOKENS)
    with serving(speaker) as state:
        yield state


@pytest.fixture(scope="module")
def made(checkpoint, server, tmp_path_factory):
    """The recipe's artifacts, and one more entry's, whose answers have log-probabilities."""
    paths = [f"{name}={checkpoint}" for name in ("corpus.tokenizer", "student.model")]
    ends = [
        f"{name}.endpoint={{url: '{server.url}', model: teacher-large, max_cost: 9.0, "
        "input_price: 1.0, output_price: 1.0}"
        for name in ("answers", "pairs")
    ]
    steps = [f"{name}.{item}" for name in ("student", "preferring") for item in FEW]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_recipe.ROOT)
        recipe = load_recipe(
            tiny_recipe.ROOT / "recipes" / "endpoint.yaml",
            overrides=[SOURCES, *paths, *ends, *steps],
        )
        del recipe.entries["report"]
        recipe.entries["told"] = recipe.entries["answers"] | {
            "write": {"kind": "logprobs", "top": TOP}
        }
        recipe.entries["taught"] = {
            "stage": "distill",
            "student": str(checkpoint),
            "teacher": "told",
            "corpus": "told",
            "objective": {"kind": "soft_target", "temperature": 1.0, "weight": 1.0},
            "batching": {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1,
                "max_length": 128,
            },
            "training": {"max_steps": 2, "learning_rate": 0.01, "warmup_steps": 1},
        }
        yield run_recipe(recipe, runs=tmp_path_factory.mktemp("runs"))


def run_alone(entry, folder):
    return run_recipe(Recipe("alone", folder / "alone.yaml", {"entry": entry}, {}), runs=folder)


def records(artifact):
    return list(read_records(artifact.path / "records" / "train.jsonl"))


def test_the_recipe(made, server):
    own, taught, pairs = (records(made[name]) for name in ("corpus", "answers", "pairs"))
    assert [item.question for item in own] == [item.question for item in taught]
    assert all(old.answer != new.answer for old, new in zip(own, taught, strict=True))
    assert any(item.rejected for item in pairs)
    assert made["pairs"].manifest.metrics["pairs"] == sum(bool(item.rejected) for item in pairs)
    assert made["preferring"].manifest.metrics["steps"] == 2
    assert made["bundle"].manifest.metrics["parity"]["argmax_agreement_ratio"] == 1
    assert set(server.questions) == {item.question for item in own}
    assert 0 < made["answers"].manifest.metrics["cost"] < 0.1


def test_labels_are_the_servers_own_probabilities(made, checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    config = BatchingConfig(max_length=128)
    told = made["told"].path
    batches = Batches(Corpus(told), tokenizer=tokenizer, config=config)
    teacher = EndpointTeacher(Corpus(told), batches=batches, needs=Needs(1.0))
    live = OnlineTeacher(load_model(checkpoint), vocab=len(tokenizer))
    metrics = made["told"].manifest.metrics
    whole_rows = same = compared = 0
    for record_id in batches.records.ids.tolist():
        batch = batches.batch([record_id])
        output, whole = teacher(batch).output, live(batch).output.logits[:, : len(tokenizer)]
        logs = whole.float().log_softmax(-1)
        assert len(output.logits) == len(logs) == int(batch.kept.sum())
        # Every row is a distribution.
        mass = output.logits.exp().sum(-1) + output.tail.exp()
        torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-4, rtol=0)
        assert all(len(set(row)) == TOP for row in output.ids.tolist())
        assert output.ids.max() < teacher.vocab
        held = output.logits > NO_MASS / 2
        alone = held.sum(-1) == 1
        compared += int((~alone).sum())
        told_all = int((~alone).sum()) == NUM_TOKENS
        close = (output.logits - logs.gather(1, output.ids)).abs() < 2e-3
        close = (close | ~held).all(-1)[~alone]
        same += int(close.sum())
        whole_rows += told_all
        assert not told_all or close.all()
    # Text cut again may be cut otherwise; from there on the server spoke of other tokens.
    assert compared == metrics["aligned_places"] > 0.5 * metrics["returned_places"]
    assert same > 0.5 * compared
    assert whole_rows > 1
    # Pieces of characters have no text, so nothing names them.
    assert metrics["missed_candidates"] > 0
    assert all("\ufffd" in text for text in metrics["missed_tokens"])


def test_a_student_learns_from_labels(made, checkpoint):
    before, after = load_model(checkpoint), load_model(made["taught"].path)
    start = before.state_dict()
    assert any(not torch.equal(start[name], item) for name, item in after.state_dict().items())
    assert made["taught"].manifest.metrics["kl"] > 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"objective": {"kind": "soft_target", "temperature": 2.0}}, "temperature is 2.0, set it"),
        ({"teacher": "answers"}, "name the labelled corpus in `corpus` too"),
        ({"teacher": "answers", "corpus": "answers"}, "write: {kind: logprobs}"),
        ({"batching": {"loss_on": "all"}}, "loss_on is 'all'"),
        ({"on_policy": {"ratio": 0.5}}, "on_policy needs a teacher that runs"),
    ],
)
def test_labels_that_do_not_fit_are_refused(changes, text, made, tmp_path):
    entry = made["taught"].manifest.recipe | changes
    places = {name: str(made[name].path) for name in ("answers", "told")}
    entry |= {name: places[entry[name]] for name in ("teacher", "corpus")}
    with pytest.raises(ArtifactError, match=text):
        run_alone(entry, tmp_path)


def test_damaged_labels_are_named(made, tmp_path):
    folder = shutil.copytree(made["told"].path, tmp_path / "told")
    tokenizer = load_tokenizer(folder / "tokenizer")
    batches = Batches(Corpus(folder), tokenizer=tokenizer, config=BatchingConfig())
    needs = {"batches": batches, "needs": Needs(1.0)}
    path = folder / "labels" / "labels.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ArtifactError, match="damaged"):
        EndpointTeacher(Corpus(folder), **needs)
    path.write_bytes(whole)
    description = folder / "labels" / "labels.json"
    text = json.loads(description.read_text())
    description.write_text(json.dumps(text | {"tokenizer_hash": "other"}))
    with pytest.raises(ArtifactError, match="another tokenizer"):
        EndpointTeacher(Corpus(folder), **needs)


def test_tokens_of_another_family_are_refused(made, corpus, tmp_path):
    """What the server says is not written with a tokenizer that knows none of its tokens."""
    path = tmp_path / "corpus"
    shutil.copytree(made["corpus"].path, path)
    shutil.rmtree(path / "tokenizer")
    shutil.copytree(corpus / "tokenizer", path / "tokenizer")
    entry = made["told"].manifest.recipe | {"corpus": str(path)}
    with pytest.raises(DataError, match="another family, write answers instead"):
        run_alone(entry, tmp_path / "runs")
