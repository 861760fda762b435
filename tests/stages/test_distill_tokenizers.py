"""A student learns from a teacher that writes the same text with other tokens."""

import shutil

import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.records import read_records
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.checkpoints import save_checkpoint
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.stages import distill
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit
from tests.support.artifacts import make_artifact, make_work
from tests.support.byte_level_tokenizer import train_byte_level

BATCHING = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "select": "all"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, corpus, moe_config):
    """A teacher that has learnt the corpus with a byte-level tokenizer and its own template."""
    records = list(read_records(corpus / "records" / "train.jsonl"))
    texts = [record.question + record.answer for record in records]
    tokenizer = train_byte_level(texts, num_tokens=320)
    model = moe_config.build(tokenizer=tokenizer, seed=0)
    root = tmp_path_factory.mktemp("tokenizers")
    fit(
        model,
        batches=Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig(**BATCHING)),
        objective=NextToken(kind="next_token").build(ObjectiveContext(model)),
        config=TrainingConfig(max_steps=90, learning_rate=0.02),
        state=root / "state",
        title="teacher",
    )
    (root / "teacher").mkdir()
    save_checkpoint(model, tokenizer=tokenizer, folder=root / "teacher")
    return make_artifact(root / "teacher", "checkpoint")


def distil(teacher, corpus, dense_config, folder, **changes):
    work = make_work(folder, "student", teacher=teacher, corpus=corpus)
    config = distill.Config.model_validate(
        {
            "stage": "distill",
            "student": dense_config.model_dump(),
            "teacher": "teacher",
            "corpus": "corpus",
            "objective": {"kind": "cross_tokenizer"},
            "batching": BATCHING,
            "training": {"max_steps": 60, "learning_rate": 0.02},
        }
        | changes
    )
    return distill.run(config, work=work)


@pytest.fixture(params=["characters", "byte-level"])
def own_corpus(request, corpus, tmp_path):
    """The corpus with its own tokenizer, or with a BPE of another size than the teacher's."""
    if request.param == "characters":
        return corpus
    shutil.copytree(corpus / "records", tmp_path / "corpus" / "records")
    records = list(read_records(corpus / "records" / "train.jsonl"))
    tokenizer = train_byte_level([record.answer for record in records], num_tokens=290)
    tokenizer.save_pretrained(tmp_path / "corpus" / "tokenizer")
    return tmp_path / "corpus"


def test_text_is_learnt_from_the_teacher_alone(teacher, own_corpus, dense_config, tmp_path):
    found = distil(
        teacher,
        own_corpus,
        dense_config,
        tmp_path / "a",
        objective={"kind": "cross_tokenizer", "weight": 1.0},
    )
    start = distil(
        teacher,
        own_corpus,
        dense_config,
        tmp_path / "b",
        training={"max_steps": 1, "learning_rate": 1e-12},
    )
    assert found["ce"] < 0.5 * start["ce"]
    assert found["kl"] < 0.3 * start["kl"]
    assert not any("tokens" in sentence for sentence in start["warnings"])


def test_sorted_probabilities_are_learnt_beside_the_answers(
    teacher, corpus, dense_config, tmp_path
):
    changes = {"objective": {"kind": "cross_tokenizer", "method": "uld"}}
    found = distil(teacher, corpus, dense_config, tmp_path / "a", **changes)
    start = distil(
        teacher,
        corpus,
        dense_config,
        tmp_path / "b",
        training={"max_steps": 1, "learning_rate": 1e-12},
        **changes,
    )
    assert found["kl"] < 0.3 * start["kl"]


def test_the_refusal_of_another_tokenizer_names_the_way_out(
    teacher, corpus, dense_config, tmp_path
):
    with pytest.raises(ArtifactError, match="cross_tokenizer"):
        distil(teacher, corpus, dense_config, tmp_path, objective={"kind": "soft_target"})
