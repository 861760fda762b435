"""A student learns from two teachers that each know another half of the corpus."""

import pytest
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import SPLITS, read_records, write_jsonl
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.checkpoints import save_checkpoint
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.stages import distill, record
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit
from tests.support.artifacts import make_artifact, make_work

HALVES = (("心血管内科", "呼吸内科"), ("消化内科", "皮肤科"))
NAMES = ("heart", "skin")
BATCHING = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "select": "all"}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, corpus, moe_config, tokenizer):
    """Two teachers, each trained on the records of two specialties alone."""
    root, found = tmp_path_factory.mktemp("teachers"), []
    records = list(read_records(corpus / "records" / "train.jsonl"))
    for seed, (name, specialties) in enumerate(zip(NAMES, HALVES, strict=True)):
        half = root / f"{name}-corpus"
        (half / "records").mkdir(parents=True)
        own = [item for item in records if item.specialty in specialties]
        for split in SPLITS:
            write_jsonl(half / "records" / f"{split}.jsonl", own)
        model = moe_config.build(tokenizer=tokenizer, seed=seed)
        fit(
            model,
            batches=Batches(Corpus(half), tokenizer=tokenizer, config=BatchingConfig(**BATCHING)),
            objective=NextToken(kind="next_token").build(ObjectiveContext(model)),
            config=TrainingConfig(max_steps=60, learning_rate=0.02),
            state=root / f"{name}-state",
            title=name,
        )
        (root / name).mkdir()
        save_checkpoint(model, tokenizer=tokenizer, folder=root / name)
        found.append(make_artifact(root / name, "checkpoint"))
    return tuple(found)


def distil(artifacts, corpus, dense_config, folder, **changes):
    config = distill.Config.model_validate(
        {
            "stage": "distill",
            "student": dense_config.model_dump(),
            "teacher": NAMES,
            "corpus": "corpus",
            "batching": BATCHING,
            "objective": {"kind": "soft_target", "temperature": 1.0, "weight": 1.0},
            "training": {"max_steps": 70, "learning_rate": 0.02},
        }
        | changes
    )
    work = make_work(folder, "student", teacher=artifacts, corpus=corpus)
    return distill.run(config, work=work)


def test_a_student_learns_what_each_teacher_knows(teachers, corpus, dense_config, tmp_path):
    specialties = {value: name for name, half in zip(NAMES, HALVES, strict=True) for value in half}
    both = distil(
        teachers,
        corpus,
        dense_config,
        tmp_path / "both",
        teachers={"mix": "specialty", "specialties": specialties},
    )
    one = distil(teachers[:1], corpus, dense_config, tmp_path / "one", teacher="heart")
    assert both["validation_loss"] < 0.5
    assert both["validation_loss"] < 0.5 * one["validation_loss"]


def test_signals_and_a_live_teacher_are_mixed(teachers, corpus, dense_config, tokenizer, tmp_path):
    (tmp_path / "signals").mkdir()
    config = record.Config(
        stage="record",
        teacher="heart",
        corpus="corpus",
        targets={"kind": "plain", "count": 8, "temperatures": (1.0,)},
        batching=BatchingConfig(**BATCHING),
    )
    inputs = {"teacher": teachers[:1], "corpus": (make_artifact(corpus, "corpus"),)}
    record.run(config, work=Work("signals", tmp_path / "signals", tmp_path / "shards", inputs))
    signals = make_artifact(tmp_path / "signals", "signals")
    short = {"training": {"max_steps": 3, "learning_rate": 0.02}}
    live = distil(teachers, corpus, dense_config, tmp_path / "live", **short)
    mixed = distil((signals, teachers[1]), corpus, dense_config, tmp_path / "mixed", **short)
    assert mixed["kl"] == pytest.approx(live["kl"], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "objective": {
                    "kind": "soft_target",
                    "matching": [{"what": "attention", "layers": "last"}],
                }
            },
            "several teachers and `objective.matching`",
        ),
        ({"router_sampling": {"num_samples": 2}}, "several teachers and `router_sampling`"),
        (
            {
                "batching": {"packing": "full"},
                "teachers": {
                    "mix": "specialty",
                    "specialties": {"皮肤科": "skin"},
                    "otherwise": "heart",
                },
            },
            "a packed row has several records",
        ),
        (
            {
                "teacher": "heart",
                "batching": {"packing": "full"},
                "objective": {
                    "kind": "soft_target",
                    "matching": [{"what": "values", "layers": "last"}],
                },
            },
            "match `what: hidden`",
        ),
        ({"teacher": "", "teachers": {"weights": [1, 2]}}, "name more|needs a `teacher`"),
    ],
)
def test_what_cannot_work_together_is_refused_before_anything_runs(changes, message, dense_config):
    given = {
        "stage": "distill",
        "student": dense_config.model_dump(),
        "teacher": NAMES,
        "corpus": "corpus",
        "training": {"max_steps": 1},
        "objective": {"kind": "soft_target"},
    }
    with pytest.raises(ValidationError, match=message):
        distill.Config.model_validate(given | changes)
