"""From an archive of images to a student that sees: the whole chain, on discs drawn here."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import ArtifactError, CheckpointError, DataError, ImageError
from limbeck.contracts.records import read_jsonl
from limbeck.models.checkpoints import load_model
from limbeck.runtimes import open_answerer
from limbeck.stages import convert, distill, export, extend, prune, quantize
from tests.support import tiny_recipe
from tests.support.artifacts import draw_discs, make_artifact

RECIPE = tiny_recipe.ROOT / "recipes" / "tests" / "vision.yaml"


def run(runs, images, *, output):
    warm = tiny_recipe.warm()
    place = f"corpus.sources.1.path={images}"
    number = warm.start("run", RECIPE, "--runs", runs, "--set", place, output=output)
    code = warm.wait(number)
    assert code == 0, output.read_text()
    return output.read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    images = draw_discs(folder / "discs.npz", train=160, val=40)
    run(folder / "runs", images, output=folder / "log")
    return folder / "runs" / "vision"


@pytest.fixture(scope="module")
def report(made):
    return json.loads((made / "report" / "report.json").read_text())


def history(folder):
    return json.loads((folder / "history.json").read_text())


def test_alignment_lowers_the_loss_and_leaves_the_text_model(made):
    losses = [point["loss"] for point in history(made / "aligned")]
    assert losses[-1] < 0.7 * losses[0]
    before, after = (load_model(made / name).state_dict() for name in ("extended", "aligned"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if name.startswith("language_model.")]


def test_teacher_and_students_distinguish_the_findings(report):
    found = {row["name"]: row["findings"]["finding"] for row in report["rows"]}
    assert found["teacher"]["images"] == 40
    assert found["teacher"]["auc"]["value"] > 0.85
    assert found["student"]["auc"]["value"] > 0.8
    accuracies = {row["name"]: row["accuracy"] for row in report["rows"]}
    assert accuracies["extended"] < 0.2
    assert min(accuracies["teacher"], accuracies["student"], accuracies["live"]) > 0.7


def test_the_report_shows_the_areas(made, report):
    area = report["rows"][1]["findings"]["finding"]["auc"]
    shown = f"{area['value']:.3f}"
    assert f"| teacher | finding | 40 | {shown} (" in (made / "report" / "report.md").read_text()
    assert shown in (made / "report" / "report.html").read_text()


def test_the_teachers_experts_are_counted_with_images(made):
    found = json.loads((made / "teacher" / "routing.json").read_text())
    rows = list(read_jsonl(made / "corpus" / "records" / "train.jsonl"))
    assert any(row["images"] for row in rows)
    assert all(sum(layer) == sum(found["layers"][0]) for layer in found["layers"])


def test_a_second_run_reuses_everything(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "runs")
    images = made.parent.parent / "discs.npz"
    log = run(tmp_path / "runs", images, output=tmp_path / "log")
    assert log.count("reused") == 9


def test_a_damaged_image_of_the_corpus_is_named(made, tmp_path):
    shutil.copytree(made / "corpus", tmp_path / "corpus")
    for path in (tmp_path / "corpus" / "images").iterdir():
        path.write_bytes(b"gone")
    config = distill.Config.model_validate(
        {
            "stage": "distill",
            "student": "student",
            "teacher": "teacher",
            "corpus": "corpus",
            "objective": {"kind": "soft_target"},
            "training": {"max_steps": 1},
        }
    )
    corpus = make_artifact(tmp_path / "corpus", "corpus")
    inputs = {"corpus": (corpus,)}
    for name in ("student", "teacher"):
        folder = shutil.copytree(made / name, tmp_path / name)
        inputs[name] = (make_artifact(folder, "checkpoint"),)
    with pytest.raises(ImageError, match=r"images/.*\.png: is no image"):
        distill.run(config, work=Work("x", tmp_path / "x", tmp_path / "state", inputs))


@pytest.fixture
def picture(made):
    question = next(read_jsonl(made / "corpus" / "questions" / "finding.jsonl"))
    return made / "corpus" / question["images"][0]


def test_answers_hang_on_the_image_and_not_on_the_batch(made, picture, tmp_path):
    answerer = open_answerer(made / "teacher", num_threads=1)
    blank = tmp_path / "blank.png"
    Image.new("L", (12, 12)).save(blank)
    asked = [
        as_prompt("怎么样？", images=[picture]),
        as_prompt("怎么样？", images=[blank]),
        "高血压看什么科？",
    ]
    together = answerer.answer(asked, max_new_tokens=4)
    alone = [answerer.answer([item], max_new_tokens=4)[0] for item in asked]
    assert [item.text for item in together] == [item.text for item in alone]
    for left, right in zip(together, alone, strict=True):
        assert left.confidence_ratio == pytest.approx(right.confidence_ratio, abs=1e-4)
    scores = [answerer.score(item, ["正常", "肺炎"]) for item in asked[:2]]
    assert not np.allclose(*scores, atol=1e-3)
    streamed = list(answerer.stream(asked[0], max_new_tokens=4))
    assert "".join(piece for piece, _ in streamed) == alone[0].text


def test_asking_at_the_terminal(made, picture, tmp_path):
    runner = CliRunner()
    base = ["ask", str(made / "student"), "怎么样？"]
    done = runner.invoke(app, [*base, "--image", str(picture)])
    assert done.exit_code == 0
    assert "正常" in done.output or "肺炎" in done.output
    for wrong, message in ((tmp_path / "absent.png", "no such image"), (RECIPE, "is no image")):
        done = runner.invoke(app, [*base, "--image", str(wrong)])
        assert done.exit_code == 1
        assert "ImageError" in done.stderr
        assert message in done.stderr
    done = runner.invoke(app, ["ask", str(made / "text"), "怎么样？", "--image", str(picture)])
    assert done.exit_code == 1
    assert "no image encoder" in done.stderr
    done = runner.invoke(
        app, ["ask", str(made / "student"), "a <|image|>", "--image", str(picture)]
    )
    assert done.exit_code == 1
    assert "itself" in done.stderr


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        (export, {"stage": "export"}, "limbeck_vision"),
        (convert, {"stage": "convert", "architecture": "qwen3_moe"}, "limbeck_vision"),
        (extend, {"stage": "extend"}, "already"),
    ],
)
def test_stages_that_know_no_images_report_it(stage, settings, message, made, tmp_path):
    checkpoint = make_artifact(shutil.copytree(made / "student", tmp_path / "seen"), "checkpoint")
    corpus = make_artifact(shutil.copytree(made / "corpus", tmp_path / "corpus"), "corpus")
    inputs = {"checkpoint": (checkpoint,), "corpus": (corpus,)}
    config = stage.Config.model_validate(settings | {"checkpoint": "seen"})
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=message):
        stage.run(config, work=Work("x", tmp_path / "out", tmp_path / "state", inputs))


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (prune, {"stage": "prune", "channels_ratio": 0.5, "heads_ratio": 0.0}),
        (quantize, {"stage": "quantize", "scheme": {"kind": "int8"}}),
    ],
)
def test_a_vision_model_becomes_smaller(stage, settings, made, picture, tmp_path):
    checkpoint = make_artifact(shutil.copytree(made / "student", tmp_path / "seen"), "checkpoint")
    corpus = make_artifact(shutil.copytree(made / "corpus", tmp_path / "corpus"), "corpus")
    work = Work(
        "x",
        tmp_path / "out",
        tmp_path / "state",
        {"checkpoint": (checkpoint,), "corpus": (corpus,)},
    )
    work.folder.mkdir()
    settings |= {"checkpoint": "seen", "corpus": "corpus", "objective": {"kind": "next_token"}}
    settings |= {"training": {"max_steps": 3, "learning_rate": 1e-4}}
    stage.run(stage.Config.model_validate(settings), work=work)
    scores = [
        open_answerer(folder, num_threads=1).score(
            as_prompt("怎么样？", images=[picture]), ["正常", "肺炎"]
        )
        for folder in (tmp_path / "out", tmp_path / "seen")
    ]
    assert int(np.argmax(scores[0])) == int(np.argmax(scores[1]))


def test_a_live_teacher_of_other_images_is_refused(made, tmp_path):
    config = distill.Config.model_validate(
        {
            "stage": "distill",
            "teacher": "teacher",
            "corpus": "corpus",
            "student": {
                "kind": "vision",
                "encoder": {"image_size": 32, "patch_size": 8},
                "text": {
                    "kind": "dense",
                    "hidden_size": 16,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "head_dim": 8,
                    "intermediate_size": 32,
                },
            },
            "objective": {"kind": "soft_target"},
            "training": {"max_steps": 1},
        }
    )
    inputs = {
        name: (make_artifact(shutil.copytree(made / name, tmp_path / name), kind),)
        for name, kind in (("corpus", "corpus"), ("teacher", "checkpoint"))
    }
    with pytest.raises(ArtifactError, match="reads images as"):
        distill.run(config, work=Work("x", tmp_path / "x", tmp_path / "state", inputs))


def test_text_questions_may_not_hide_image_tokens(made, picture):
    answerer = open_answerer(made / "teacher", num_threads=1)
    with pytest.raises(DataError, match="itself"):
        answerer.answer([as_prompt("<|image|>", images=[picture])], max_new_tokens=2)


def test_reading_a_bundle_loads_no_image_library():
    code = "import sys, limbeck.runtimes.onnx.runtime; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tiny_recipe.ROOT).returncode == 0
