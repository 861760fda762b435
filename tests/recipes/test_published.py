"""Recipes for published models, from end to end on tiny checkpoints of the same architectures."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from limbeck.contracts.errors import RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.distillation.teachers import offloading
from limbeck.models.batch import pad_rows
from limbeck.models.checkpoints import load_model
from limbeck.models.config import PLAIN_HEADS
from limbeck.models.forward import KeptForward
from limbeck.models.logit_parity import random_tokens
from limbeck.pipeline.run import run as run_recipe
from tests.support import tiny_recipe
from tests.support.forked_children import fork_children
from tests.support.published_checkpoints import STUDENTS, TEACHERS, make_checkpoint

MIXTURE_RECIPE = tiny_recipe.ROOT / "recipes" / "qwen3-30b-a3b.yaml"
FEW = (
    "batching={per_device_train_batch_size: 4, gradient_accumulation_steps: 1, max_length: 128}",
    "training={max_steps: 3, learning_rate: 0.01, warmup_steps: 1}",
)
SOURCES = (
    "corpus.sources=[{kind: knowledge, max_records: 60, "
    "classification: {train_sets: 1, questions: 4, held_out_sets: 1}, "
    "refusals: 1, refusal_questions: 2, facts: {forms_per_fact: 1, "
    "statements_per_fact: 0, recall_questions: 4, choice_questions: 4}}]"
)
REPORT = (
    "report.max_questions=2",
    "report.max_new_tokens=2",
    "report.batch_size=2",
    "report.profile={questions: 1, rounds: 1, thread_counts: [1]}",
)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A folder with one tiny checkpoint of every architecture, all of one tokenizer."""
    root = tmp_path_factory.mktemp("published")
    for name, build in {**TEACHERS, **STUDENTS}.items():
        make_checkpoint(root / name, build=build)
    return root


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """One folder, so that what two recipes have in common, such as the corpus, is made once."""
    return tmp_path_factory.mktemp("published-runs")


@pytest.fixture
def go(runs, monkeypatch):
    """Runs a recipe with overrides, or all of it but some entries."""
    monkeypatch.chdir(tiny_recipe.ROOT)
    fork_children(set_attribute=monkeypatch.setattr)

    def go(path, *overrides, without=()):
        recipe = load_recipe(path, overrides=overrides)
        for name in without:
            del recipe.entries[name]
        return run_recipe(recipe, runs=runs)

    return go


@pytest.mark.parametrize("name", [*TEACHERS, *STUDENTS])
def test_kept_positions_hold_the_logits_of_the_whole_model(name, checkpoints):
    model = load_model(checkpoints / name)
    assert model.config.model_type in PLAIN_HEADS
    ids = random_tokens(vocab=500, num_prompts=3, num_tokens=12)
    batch = pad_rows(list(ids.numpy()), starts=[4, 1, 9], pad=0, record_ids=[0, 1, 2])
    keep = batch.kept
    with torch.no_grad():
        whole = model(ids, output_hidden_states=True, use_cache=False)
        kept = KeptForward(model)(batch, layers=(1, 2))
    torch.testing.assert_close(kept.logits, whole.logits[keep], atol=1e-5, rtol=1e-4)
    for layer, hidden in zip((1, 2), kept.hidden, strict=True):
        torch.testing.assert_close(hidden, whole.hidden_states[layer][keep], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TEACHERS)
def test_the_checkpoints_hold_every_expert_for_itself(name, checkpoints):
    files = sorted((checkpoints / name).glob("*.safetensors"))
    names = []
    for path in files:
        with safe_open(path, "numpy") as file:
            names += file.keys()
    assert len(files) > 1 and any(".experts.3." in item for item in names)


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_published_mixture_teaches_a_published_model(teacher, student, go, checkpoints):
    artifacts = go(
        MIXTURE_RECIPE,
        SOURCES,
        *REPORT,
        f"corpus.tokenizer={checkpoints / 'qwen3'}",
        f"signals.teacher={checkpoints / teacher}",
        f"student.student={checkpoints / student}",
        "signals.batching={max_length: 128}",
        *(f"student.{item}" for item in FEW),
        without=() if (teacher, student) == ("qwen3_moe", "qwen3") else ("report",),
    )
    learnt = load_model(artifacts["student"].path)
    assert learnt.config.model_type == student
    start = load_model(checkpoints / student).state_dict()
    assert any(not torch.equal(start[name], item) for name, item in learnt.state_dict().items())
    assert artifacts["bundle"].manifest.metrics["parity"]["argmax_agreement_ratio"] == 1
    if "report" in artifacts:  # answering takes seconds, and is the same for every teacher
        report = json.loads((artifacts["report"].path / "report.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in report["rows"]] == ["student", "bundle"]


@pytest.mark.parametrize("student", ["described", "llama"])
def test_the_deepseek_recipe(student, go, checkpoints):
    described = (
        "{kind: dense, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
        "num_key_value_heads: 1, head_dim: 16, intermediate_size: 16}"
    )
    teacher = checkpoints / "deepseek_v3"
    artifacts = go(
        tiny_recipe.ROOT / "recipes" / "deepseek-v3.yaml",
        SOURCES,
        *REPORT,
        f"corpus.tokenizer={checkpoints / 'qwen3'}",
        f"signals.teacher={teacher}",
        "signals.batching={max_length: 128}",
        *(f"student.{item}" for item in FEW),
        f"student.student={described if student == 'described' else checkpoints / student}",
        without=("report",),
    )
    assert (artifacts["bundle"].path / "bundle.json").is_file()
    assert artifacts["signals"].manifest.metrics["positions"] > 0


@pytest.mark.parametrize("form", ["array", "lines"])
def test_an_alpaca_file_of_ones_own(form, go, checkpoints, tmp_path):
    rows = [
        {
            "instruction": f"Name the parts of machine {number}.",
            "input": f"Model {number * 7}",
            "output": f"The parts are a wheel, a lever and {number} springs.",
        }
        for number in range(40)
    ]
    rows.append({"instruction": "No answer?", "input": "", "output": ""})
    path = tmp_path / "alpaca.json"
    lines = "\n".join(map(json.dumps, rows))
    path.write_text(json.dumps(rows) if form == "array" else lines, encoding="utf-8")
    artifacts = go(
        tiny_recipe.ROOT / "recipes" / "alpaca.yaml",
        f"corpus.sources.0.path={path}",
        f"corpus.tokenizer={checkpoints / 'olmoe'}",
        f"student.teacher={checkpoints / 'olmoe'}",
        f"student.student={checkpoints / 'qwen3'}",
        *(f"student.{item}" for item in FEW),
    )
    corpus = artifacts["corpus"].path
    card = json.loads((corpus / "card.json").read_text(encoding="utf-8"))
    kept = [
        json.loads(line)
        for split in ("train", "validation", "test")
        for line in (corpus / "records" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(kept) + sum(card["counts"]["dropped"].values()) == len(rows), card["counts"]
    assert all(item["question"].endswith(tuple("0123456789")) for item in kept)
    assert load_model(artifacts["student"].path).config.model_type == "qwen3"


def test_a_teacher_of_another_tokenizer_is_refused(go, checkpoints, tmp_path):
    other = shutil.copytree(checkpoints / "qwen3_moe", tmp_path / "other")
    path = other / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<|im_start|>", "<|start|>"))
    with pytest.raises(RecipeError, match=r"line 23: signals.teacher: .*tokenizer differs from"):
        go(
            MIXTURE_RECIPE,
            SOURCES,
            f"corpus.tokenizer={checkpoints / 'qwen3'}",
            f"signals.teacher={other}",
            f"student.student={checkpoints / 'qwen3'}",
        )


@pytest.mark.parametrize("name", ["deepseek_v3", "mixtral"])
def test_a_teacher_larger_than_the_memory_teaches_the_same(
    name, go, checkpoints, monkeypatch, caplog
):
    found = []
    for free in (10**9, 60_000):
        monkeypatch.setattr(offloading, "free_bytes", lambda free=free: free)
        artifacts = go(
            MIXTURE_RECIPE,
            SOURCES,
            f"corpus.tokenizer={checkpoints / 'qwen3'}",
            f"signals.teacher={checkpoints / name}",
            f"student.student={checkpoints / 'qwen3'}",
            "signals.batching={max_length: 128}",
            *(f"student.{item}" for item in FEW),
            f"student.teacher={checkpoints / name}",
            without=("bundle", "report"),
        )
        shards = sorted(artifacts["signals"].path.glob("**/*.safetensors"))
        metrics = artifacts["student"].manifest.metrics
        found.append(([path.read_bytes() for path in shards], metrics["loss"], metrics["missed"]))
        for entry in ("signals", "student"):
            shutil.rmtree(artifacts[entry].path)
    assert caplog.text.count("the model is spread over what there is") == 2
    assert found[0][0]
    assert found[0] == found[1]
