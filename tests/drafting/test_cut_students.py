"""The student that `limbeck new` drafts is cut out of a teacher that can be cut."""

import json

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.drafting.cut_students import can_be_cut, count_fit_records
from limbeck.models.config_file import read_config
from tests.support.drafted_files import clauses, lines
from tests.support.families import make_family
from tests.support.forked_children import fork_children
from tests.support.published_checkpoints import STUDENTS, make_checkpoint

SMALL = (
    "report.max_questions=4",
    "report.max_new_tokens=4",
    "report.profile={questions: 1, rounds: 1, thread_counts: [1]}",
    "student.training.max_steps=1",
    "int8.training.max_steps=1",
)


def test_a_student_is_cut_out_of_its_teacher_and_runs_to_its_report(new, tmp_path, monkeypatch):
    make_checkpoint(tmp_path / "whole", build=STUDENTS["qwen3"])
    text, code, recipe = new("a.jsonl", lines(clauses(80)), "--teacher", "whole")
    assert code == 0, text
    assert recipe["student"]["student"] == "cut"
    assert recipe["student"]["training"]["learning_rate"] < 0.001
    assert recipe["cut"]["checkpoint"] == recipe["student"]["teacher"] == "whole"
    assert recipe["cut"]["batching"] == recipe["student"]["batching"]
    assert "{kind: dense, " in (tmp_path / "mine.yaml").read_text()
    fork_children(set_attribute=monkeypatch.setattr)
    words = ["run", "mine.yaml", *(item for value in SMALL for item in ("--set", value))]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "runs" / "mine" / "report" / "report.json").read_text())
    sizes = {row["name"]: row["parameters"] for row in report["rows"]}
    assert sizes["student"] == sizes["bundle"] < sizes["whole"]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("Llama 3", {}, True),
        ("Gemma 3", {}, True),
        ("Phi-3", {}, True),
        ("Qwen3-MoE", {}, False),
        ("GPT-2", {}, False),
        ("Llama 3", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, False),
    ],
)
def test_what_cannot_be_cut_gets_a_fresh_student(name, changes, expected, tmp_path):
    make_family(tmp_path / "model", name=name)
    config = read_config(tmp_path / "model") | changes
    assert can_be_cut(tmp_path / "model", config=config) is expected


@pytest.mark.parametrize(
    ("columns", "mean_tokens", "num_records", "expected"),
    [(1536, 135.0, 6000, 128), (11008, 50.0, 6000, 591), (11008, 50.0, 200, 200)],
)
def test_a_fit_reads_four_times_as_many_tokens_as_its_widest_layer_has_columns(
    columns, mean_tokens, num_records, expected
):
    config = {"intermediate_size": columns}
    found = count_fit_records(config, mean_tokens=mean_tokens, num_records=num_records)
    assert found == expected
