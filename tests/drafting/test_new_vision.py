"""`limbeck new` on a file about images: a recipe whose models read them, up to its report."""

import json

import pytest
import torch
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.config import EncoderConfig
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.builder import add_encoder
from tests.support.drafted_files import draw, inlined, lines, pictured
from tests.support.forked_children import fork_children
from tests.support.published_checkpoints import TEACHERS, make_checkpoint

SIZES = (
    "student.student.text={kind: dense, hidden_size: 32, num_hidden_layers: 1, "
    "num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16, intermediate_size: 32}",
    "report.max_new_tokens=4",
    "report.profile={questions: 1, rounds: 1, thread_counts: [1]}",
)


def run(tmp_path, monkeypatch, *entries, file):
    words = ["run", tmp_path / "mine.yaml", "--runs", tmp_path / "runs"]
    steps = [f"{entry}.training.max_steps=2" for entry in entries]
    for override in (*SIZES, *steps, f"corpus.sources.0.path={tmp_path / file}"):
        words += ["--set", override]
    fork_children(set_attribute=monkeypatch.setattr)
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads((tmp_path / "runs" / "mine" / "report" / "report.json").read_text())


def test_chats_that_hold_their_images_run_to_a_report(new, tmp_path, monkeypatch):
    """Texts beside the images are learnt and asked as well."""
    text, code, recipe = new("chat.jsonl", lines([*inlined(60), *pictured(0, others=30)]))
    assert code == 0, text
    assert "60 rows are about images: the teacher and its student learn to read them" in text
    assert "image_folder" not in recipe["corpus"]["sources"][0]
    assert recipe["extended"]["encoder"]["image_size"] == 64
    assert recipe["extended"]["encoder"]["num_channels"] == 3
    assert "bundle" not in recipe
    found = run(tmp_path, monkeypatch, "aligned", "teacher", "student", "int8", file="chat.jsonl")
    assert [row["name"] for row in found["rows"]] == ["teacher", "student", "int8"]
    runs = tmp_path / "runs" / "mine"
    before, after = (load_model(runs / name).state_dict() for name in ("extended", "aligned"))
    learnt = {name for name in before if not torch.equal(before[name], after[name])}
    assert learnt and not [name for name in learnt if name.startswith("language_model.")]
    tasks = found["corpus"]["tasks"]
    count, num_texts = (tasks[name]["asked"] for name in ("test_images", "test_split"))
    assert count + num_texts == found["corpus"]["splits"]["test"]
    assert found["corpus"]["left_out"] == 0
    assert {row["name"] for row in found["floors"]} >= {"majority", "linear"}
    for row in found["rows"]:
        assert row["nats_per_byte"]["count"] == count + num_texts
        assert row["texts"]["test_images"]["chrf"]["count"] == count


def extend(folder, *, source, **encoder):
    tokenizer, model = load_tokenizer(source), load_model(source)
    config = EncoderConfig(**encoder)
    model = add_encoder(model, tokenizer=tokenizer, config=config, seed=0)
    save_checkpoint(model, tokenizer=tokenizer, folder=folder)
    return folder


def test_a_teacher_that_reads_images_is_not_extended(new, tmp_path, teacher):
    draw(tmp_path, 30)
    seeing = extend(tmp_path / "seeing", source=teacher, image_size=16, patch_size=4)
    _, code, recipe = new("chat.jsonl", lines(pictured(30)), "--teacher", str(seeing))
    assert code == 0
    assert not {"extended", "aligned", "teacher"} & set(recipe)
    assert recipe["student"]["teacher"] == str(seeing)
    encoder = recipe["student"]["student"]["encoder"]
    assert (encoder["image_size"], encoder["num_channels"]) == (16, 1)
    assert EncoderConfig.model_validate(encoder) == EncoderConfig(image_size=16, patch_size=4)


@pytest.mark.parametrize("reads_images", [False, True])
def test_a_named_student_reads_images_as_its_teacher_does(new, tmp_path, reads_images):
    draw(tmp_path, 30)
    student = tmp_path / "small"
    make_checkpoint(student, build=TEACHERS["qwen3_moe"])
    if reads_images:
        student = extend(tmp_path / "seeing", source=student, image_size=48, patch_size=4)
    _, code, recipe = new("chat.jsonl", lines(pictured(30)), "--student", str(student))
    assert code == 0
    encoder = recipe["extended"]["encoder"]
    assert encoder["image_size"] == (48 if reads_images else 32)
    if reads_images:
        assert recipe["student"]["student"] == str(student)
    else:
        started = recipe["start_extended"]
        assert (started["checkpoint"], started["encoder"]) == (str(student), encoder)
        assert recipe["student"]["student"] == "start_extended"
    assert "initialize_from" not in recipe["student"]


def test_encoders_that_differ_are_refused(new, tmp_path, teacher):
    draw(tmp_path, 30)
    seeing = extend(tmp_path / "seeing", source=teacher, image_size=16, patch_size=4)
    other = extend(tmp_path / "other", source=teacher, image_size=48, patch_size=4)
    names = ("--teacher", str(seeing), "--student", str(other))
    text, code, recipe = new("chat.jsonl", lines(pictured(30)), *names)
    assert code == 1
    assert "read images differently (image_size 16 and 48)" in text
    assert recipe is None


def test_few_images_are_read_where_that_is_wanted(new, tmp_path):
    draw(tmp_path, 20)
    text, code, recipe = new("chat.jsonl", lines(pictured(20, others=40)), "--vision")
    assert code == 0, text
    assert recipe["aligned"]["batching"]["images"] == "with"
    assert "images" not in recipe["teacher"]["batching"]
