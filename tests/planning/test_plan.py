"""`limbeck plan`: the reference's size, what fits, and how wrong plans are refused."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from limbeck.contracts.artifacts import CACHE
from limbeck.distillation.losses.config import CHUNK_BYTES
from limbeck.models.moe.fusion import AttentionFusion
from limbeck.models.tokenizers import load_tokenizer
from limbeck.planning.tables import span
from limbeck.sizing.memory import LAYOUTS
from tests.support import tiny_recipe
from tests.support.published_checkpoints import TEACHERS, make_checkpoint

REFERENCE = tiny_recipe.ROOT / "recipes" / "reference-size.yaml"
MOST_BYTES = 2 * 10**9
MEASURE = """
import resource, subprocess, sys
with open(sys.argv[1], "wb") as out:
    code = subprocess.call(sys.argv[2:], stdout=out)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The plan of the reference's size, made by a process of its own, and its peak bytes."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-m", "limbeck.cli", "plan", str(REFERENCE), "--json"]
    # A small process starts it: a child's peak counts what its parent held when it was forked.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder / "out"), *command],
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out").read_text()), int(done.stdout)


def test_the_references_size_is_planned_in_little_memory(reference):
    _, peak_bytes = reference
    assert peak_bytes < MOST_BYTES


def test_the_references_figures(reference):
    planned, _ = reference
    rows = {row["name"]: row for row in planned["rows"]}
    teacher, student = rows["teacher"], rows["student"]
    assert teacher["expert_parameters"] / 128 == pytest.approx(12e9, rel=0.01)
    assert teacher["skipped_expert_ratio"] > 0.95
    assert student["parameters"] == pytest.approx(6e9, rel=0.05)
    assert rows["phone"]["parameters"] == pytest.approx(3e9, rel=0.05)
    assert rows["base"]["training_tokens"] == pytest.approx(400e9, rel=1e-4)
    assert teacher["training_tokens"] == pytest.approx(50e9, rel=1e-4)
    by_layout = teacher["training"]["by_layout"]
    assert list(by_layout) == list(LAYOUTS)
    assert teacher["training"]["fit"] is None
    assert "does not fit 2 x A100-40GB" in teacher["training"]["verdict"]
    assert "expert parallelism" in teacher["training"]["verdict"]
    assert teacher["training"]["needed"]["tokens_per_second"] > 0
    assert "does not fit 1 x T4-16GB" in teacher["inference"]["verdict"]
    assert student["training"]["fit"]["changes"]
    assert "int8" in student["inference"]["fitting"]
    assert student["size_targets"]["edge"]["number_format"] == "int2"
    assert rows["phone"]["size_targets"]["mobile"]["number_format"] == "ternary"
    assert rows["phone"]["size_targets"]["mobile"]["kept_ratio"] < 0.8


def test_the_logits_of_a_fused_loss_are_those_of_a_chunk(reference, invoke):
    def find(planned):
        rows = [row for row in planned["rows"] if "training" in row]
        return {row["name"]: row["training"]["workload"]["chunk_bytes"] for row in rows}

    chunked = {"student", "pruned", "healed", "phone"}
    assert find(reference[0]) == {
        name: CHUNK_BYTES if name in chunked else 0
        for name in ("base", "teacher", "student", "pruned", "healed", "int8", "phone")
    }
    small = "student.objective={kind: soft_target, fused: %s}"
    for fused, wanted in (("auto", 0), ("always", CHUNK_BYTES), ("never", 0)):
        found = find(
            json.loads(invoke(tiny_recipe.RECIPE, "--json", "--set", small % fused).stdout)
        )
        assert found["student"] == wanted


def test_the_references_fusion_is_counted(reference):
    planned, _ = reference
    recipe = yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))
    model = recipe["base"]["model"]
    fusion = AttentionFusion(
        hidden=model["hidden_size"], num_heads=model["fusion_heads"], rank=model["fusion_rank"]
    )
    added = model["num_hidden_layers"] * sum(item.numel() for item in fusion.parameters())
    base = next(row for row in planned["rows"] if row["name"] == "base")
    experts = base["expert_parameters"]
    hidden, layers = model["hidden_size"], model["num_hidden_layers"]
    heads = (2 * model["num_attention_heads"] + 2 * model["num_key_value_heads"]) * model[
        "head_dim"
    ]
    norms = layers * (2 * hidden + 2 * model["head_dim"]) + hidden
    gates = layers * model["num_experts"] * hidden
    attention = layers * hidden * heads
    assert base["parameters"] == (
        experts + added + gates + attention + norms + base["embedding_parameters"]
    )


@pytest.mark.parametrize("path", [tiny_recipe.RECIPE, REFERENCE], ids=lambda path: path.stem)
def test_tables_fit_a_terminal_of_100_columns(invoke, path):
    text = invoke(path).output
    assert max(map(len, text.splitlines())) <= 100
    for part in ("训练显存", "推理", "体积目标", "ZeRO-3", "FSDP2", "A100-40GB", "T4-16GB"):
        assert part in text
    assert "…" not in text


def test_a_small_recipe_fits_the_references_cards_as_it_is(invoke):
    planned = json.loads(invoke(tiny_recipe.RECIPE, "--json").stdout)
    for row in planned["rows"]:
        if "training" in row:
            assert row["training"]["fit"]["changes"] == []
        if "inference" in row:
            assert "float32" in row["inference"]["fitting"]


def test_cards_are_stated_like_any_field(invoke):
    text = invoke(
        REFERENCE,
        "--set",
        "plan.training.gpu=H200-141GB",
        "--set",
        "plan.training.count=1024",
        "--set",
        "plan.inference={gpu: H200-141GB, count: 8}",
    ).output
    assert "1024 x H200-141GB" in text
    assert "8 x H200-141GB" in text
    text = invoke(tiny_recipe.RECIPE, "--set", "plan.vocab=777").output
    assert "777 tokens in the vocabulary" in text


def test_a_named_tokenizer_is_counted_before_the_corpus_is_made(invoke, tmp_path):
    folder = tmp_path / "teacher"
    make_checkpoint(folder, build=TEACHERS["qwen3_moe"])
    num_tokens = len(load_tokenizer(folder))
    assert num_tokens != 2000  # what is assumed otherwise
    text = invoke(tiny_recipe.RECIPE, "--set", f"corpus.tokenizer={folder}").output
    assert f"corpus: {num_tokens:,} tokens in the vocabulary" in text


def test_a_corpus_with_the_tokenizer_of_one_that_is_made(invoke, tmp_path):
    made = tiny_recipe.copy_runs(tmp_path, entries=("corpus",)) / "tiny" / "corpus"
    num_tokens = len(load_tokenizer(made / "tokenizer"))
    recipe = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    others = {name: entry for name, entry in recipe.items() if entry["stage"] == "train"}
    name = next(iter(others))
    few = {**recipe["corpus"], "tokenizer": name}
    path = tmp_path / "tiny.yaml"
    entries = {"corpus": recipe["corpus"], **others, "few": few, "last": {**others[name]}}
    entries["last"]["corpus"] = "few"
    path.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    assert f"few: {num_tokens:,} tokens in the vocabulary" in invoke(path).output


def test_beside_a_finished_run_the_runs_own_tokens_are_counted_without_torch(
    tmp_path, modules_loaded
):
    runs = tiny_recipe.copy_runs(tmp_path / "runs")
    tokens = runs / "tiny" / CACHE / "tokens"
    shutil.copytree(
        (tiny_recipe.runs() / "tiny" / "corpus").resolve().parent / CACHE / "tokens", tokens
    )
    before = sorted(tokens.iterdir())
    found = modules_loaded(tiny_recipe.RECIPE, "--runs", runs)
    assert "transformers" in found
    assert "torch" not in found
    assert sorted(tokens.iterdir()) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan.training.gpu=A100", "plan.training.gpu: unknown GPU 'A100': did you mean"),
        ("plan.training={gpu: A100-40GB, count: 0}", "plan.training.count"),
        ("plan.inferense.gpu=L4-24GB", "unknown key 'inferense'"),
        ("plan=3", "expected entry.field=value"),
    ],
)
def test_wrong_plans_are_refused(invoke, override, message):
    text = invoke(tiny_recipe.RECIPE, "--set", override, code=1).stderr
    assert message in text
    assert "Traceback" not in text


def test_a_plan_in_a_recipe_is_no_entry(invoke, tmp_path):
    value = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    path = tmp_path / "stated.yaml"
    path.write_text(
        yaml.safe_dump({"plan": {"training": {"gpu": "L4-24G"}}, **value}, sort_keys=False)
    )
    text = invoke(path, code=1).stderr
    assert "line 3: plan.training.gpu: unknown GPU 'L4-24G': did you mean 'L4-24GB'?" in text
    path.write_text(yaml.safe_dump({"plan": [1], **value}))
    assert "plan: expected a mapping, found [1]" in invoke(path, code=1).stderr


def test_a_mixture_cannot_be_planned_to_be_pruned(invoke, tmp_path):
    text = invoke(tiny_recipe.RECIPE, "--set", "pruned.checkpoint=teacher", code=1).stderr
    assert "pruned.channels_ratio" in text
    assert "no layer has `mlp.gate_proj`" in text


def test_a_model_that_cannot_be_sized(invoke, tmp_path):
    path = tmp_path / "other.yaml"
    value = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    value["student"] |= {"student": "org/unknown"}
    value["student"].pop("initialize_from", None)
    path.write_text(yaml.safe_dump(value))
    text = invoke(path, code=1).stderr
    assert "CheckpointError" in text
    assert "cannot be read, so it cannot be sized" in text


def test_spans_change_their_unit():
    assert [span(seconds) for seconds in (1.5, 200.0, 8000.0, 10**6, 10**9, 10**13)] == [
        "1.5 s",
        "3.33 min",
        "2.22 h",
        "11.6 days",
        "31.7 years",
        "316,881 years",
    ]


def test_every_live_teacher_is_counted(invoke, tmp_path):
    recipe = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    entries = {name: recipe[name] for name in ("corpus", "pretrained", "teacher", "student")}
    entries["student"]["objective"] = {"kind": "soft_target"}
    found = []
    for teacher in ("teacher", ["pretrained", "teacher"]):
        entries["student"]["teacher"] = teacher
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(entries, sort_keys=False))
        rows = json.loads(invoke(path, "--json").stdout)["rows"]
        student = next(row for row in rows if row["name"] == "student")
        found.append(student["training"]["workload"]["frozen_bytes"])
    assert found[1] == 2 * found[0] > 0


def test_an_entry_without_a_corpus_names_none(invoke, tmp_path):
    make_checkpoint(tmp_path / "teacher", build=TEACHERS["qwen3_moe"])
    path = tmp_path / "seeing.yaml"
    path.write_text(f"extended: {{stage: extend, checkpoint: {tmp_path / 'teacher'}}}\n", "utf-8")
    text = invoke(path).output
    assert "extended" in text and "tokens in the vocabulary" not in text
