"""`limbeck plan --target`: what fits a device, what does not and why, wrong targets."""

import json
from dataclasses import replace

import pytest
import yaml
from transformers import Gemma3TextConfig, GPT2Config, Qwen2Config

from limbeck.contracts.registry import RUNTIMES
from limbeck.models.config import DenseModel
from limbeck.models.decoder_sizes import DecoderSizes
from limbeck.models.vocabulary import Vocabulary
from limbeck.planning.designs import list_cuts, list_fresh
from limbeck.planning.refusals import find_refusal
from limbeck.sizing.file_formats import FILE_FORMATS
from tests.support import tiny_recipe
from tests.support.tiny_checkpoints import make_checkpoint

TARGETS = tiny_recipe.ROOT / "recipes" / "targets"
MB = 10**6
QWEN = DecoderSizes("qwen3", 1000, 256, 2, 4, 1, 64, 512, True, intermediate_size=512)


@pytest.fixture
def write(tmp_path):
    def write(**fields):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(fields, sort_keys=False))
        return path

    return write


def read(invoke, *arguments):
    (model,) = json.loads(invoke("--target", *arguments, "--json").stdout)["models"]
    return model


def by_format(rows):
    return {row["file_format"]: row for row in rows}


def test_the_references_students_fit_in_ternary_or_pruned(invoke):
    edge = read(invoke, TARGETS / "edge.yaml")
    asked = by_format(edge["asked"])
    assert asked["gguf Q4_0"]["parameters"] == pytest.approx(6e9, rel=0.05)
    fitting = {name for name, row in asked.items() if not row["misses"]}
    assert fitting == {"gguf TQ1_0", "gguf TQ2_0"}
    assert {miss["budget"] for miss in asked["gguf Q4_0"]["misses"]} >= {"disk_bytes"}
    phone = read(invoke, TARGETS / "phone.yaml")
    asked = by_format(phone["asked"])
    assert asked["gguf TQ1_0"]["parameters"] == pytest.approx(3e9, rel=0.05)
    assert all(row["misses"] for row in asked.values())
    found = by_format(phone["fitting"])["gguf TQ1_0"]
    assert found["made_by"] == "pruned"
    assert found["disk_bytes"] < 500 * MB
    assert found["parameters"] > 2e9
    for model in (edge, phone):
        assert all(row["misses"] == [] for row in model["fitting"])


@pytest.mark.parametrize("name", ["edge", "phone"])
def test_tables_fit_a_terminal_of_100_columns(invoke, name):
    text = invoke("--target", TARGETS / f"{name}.yaml").output
    assert max(map(len, text.splitlines())) <= 100
    for part in ("目标", "放得下", "gguf TQ1_0", "docs/budgets.md"):
        assert part in text
    assert "…" not in text


def test_a_target_loads_no_torch(modules_loaded):
    found = modules_loaded("--target", TARGETS / "phone.yaml", "--json")
    assert "limbeck.planning" in found
    assert not {"torch", "transformers"} & found


def test_a_checkpoint_is_read_with_its_vocabulary_and_pruned_until_it_fits(invoke, write, tmp_path):
    plain = {"attention_bias": False, "mlp_bias": False, "num_hidden_layers": 4}
    model = make_checkpoint(tmp_path / "start", "llama", **plain, intermediate_size=512)
    path = write(disk_bytes=600_000, model={"start": str(tmp_path / "start")})
    found = read(invoke, path)
    assert (found["name"], found["vocab"]) == ("start", model.config.vocab_size)
    assert {row["cache_bytes"] for row in found["asked"] if row["file_format"][0] == "o"} == {
        model.config.max_position_embeddings * 4 * 2 * 16 * 4  # layers, keys and values, a head
    }
    float32 = by_format(found["asked"])["onnx float32"]
    assert float32["parameters"] == sum(item.numel() for item in model.parameters())
    pruned = by_format(found["fitting"])["onnx float32"]
    assert pruned["made_by"] == "pruned"
    assert pruned["settings"]["channels_ratio"] > 0
    assert 450_000 < pruned["disk_bytes"] <= 600_000
    assert "gguf TQ1_0" in found["impossible"]  # rows of 32


def test_a_tokenizers_folder_has_its_vocabulary(invoke, write, tmp_path):
    model = make_checkpoint(tmp_path / "start")
    path = write(disk_bytes=50 * MB, model={"tokenizer": str(tmp_path / "start-tokenizer")})
    found = read(invoke, path)
    assert found["vocab"] == model.config.vocab_size
    assert found["vocabulary_from"] == str(tmp_path / "start-tokenizer")
    assert found["asked"] == []
    largest = by_format(found["fitting"])
    assert 0.85 * 50 * MB < largest["gguf Q8_0"]["disk_bytes"] <= 50 * MB
    assert largest["gguf Q8_0"]["parameters"] < largest["gguf TQ1_0"]["parameters"]


def test_an_impossible_budget_names_itself_and_the_nearest_design(invoke, write):
    path = write(disk_bytes=500 * MB, memory_bytes=30 * MB, model={"parameters": 10**9})
    text = " ".join(invoke("--target", path).output.split())
    assert "gguf Q8_0: no design fits; the nearest, 256x4x768 (11.4 M parameters), has" in text
    assert "times the memory" in text
    found = read(invoke, path)
    assert found["fitting"] == []
    for row in found["nearest"]:
        assert {miss["budget"] for miss in row["misses"]} == {"memory_bytes"}
    assert found["asked"][0]["parameters"] == pytest.approx(1e9, rel=0.04)


def test_speed_binds_as_bytes_do(invoke, write):
    machine = {"bytes_per_second": 3e10, "flops_per_second": 1e11}
    model = {"parameters": 10**9}
    slow = write(token_milliseconds=50, machine=machine, runtimes=["gguf"], model=model)
    found = by_format(read(invoke, slow)["asked"])
    assert [miss["budget"] for miss in found["gguf F16"]["misses"]] == ["tokens_per_second"]
    assert found["gguf F16"]["misses"][0]["allowed"] == 20
    fits = by_format(read(invoke, slow)["fitting"])["gguf F16"]
    assert fits["tokens_per_second"] >= 20
    one = write(
        tokens_per_second=1, machine=machine | {"threads": 1, "flops_per_second": 0}, model=model
    )
    alone = by_format(read(invoke, one)["asked"])["gguf TQ1_0"]
    assert alone["tokens_per_second"] == pytest.approx(4.9e9 / alone["weight_bytes"], rel=0.01)
    first = write(first_token_milliseconds=1000, machine=machine, model=model)
    rows = read(invoke, first)["asked"]
    assert {miss["budget"] for row in rows for miss in row["misses"]} == {
        "first_token_milliseconds"
    }


def test_a_recipes_models_are_held_against_a_target(invoke):
    target = TARGETS / "phone.yaml"
    found = json.loads(invoke(tiny_recipe.RECIPE, "--target", target, "--json").stdout)
    names = [model["name"] for model in found["models"]]
    assert "student" in names
    assert "teacher" not in names
    assert "is no dense decoder" in next(iter(found["left_out"].values()))
    text = invoke(
        tiny_recipe.RECIPE, "--target", target, "--set", "target.disk_bytes=100000"
    ).output
    assert "100 kB on disk" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"disk_byte": 3}, "line 1: disk_byte: unknown key 'disk_byte': did you mean 'disk_bytes'"),
        ({"disk_bytes": "500 MB"}, "line 1: disk_bytes:"),
        ({"disk_bytes": 9, "model": {"famly": "x"}}, "line 3: model.famly: unknown key 'famly'"),
        ({"disk_bytes": 9, "runtimes": ["gguff"]}, "runtimes.0:"),
        ({"context_tokens": 2048}, "disk_bytes: no budget is stated"),
        ({"tokens_per_second": 5}, "machine.bytes_per_second: is 0, and a speed is asked for"),
        ({"first_token_milliseconds": 5}, "machine.flops_per_second: is 0"),
        ({"disk_bytes": 9, "prompt_tokens": 9999}, "line 2: prompt_tokens: is 9999, more than"),
        ({"disk_bytes": 9, "model": {"start": "nowhere"}}, "model.start: 'nowhere' is no folder"),
        ({"disk_bytes": 9, "model": {"tokenizer": "recipes"}}, "recipes: has no tokenizer.json"),
        ({"disk_bytes": 9, "model": {"vocab": 9, "tokenizer": "docs"}}, "leave one of both out"),
        ({"disk_bytes": 9, "model": {"start": "docs"}}, "docs: holds no checkpoint"),
    ],
)
def test_wrong_targets_are_refused(invoke, write, fields, message):
    text = " ".join(invoke("--target", write(**fields), code=1).stderr.split())
    assert message in text
    assert "Traceback" not in text


def test_a_mixture_a_missing_file_and_nothing_at_all_are_refused(invoke, write, tmp_path):
    sparse = {"kind": "moe", "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16}
    sparse |= {"num_attention_heads": 2, "num_key_value_heads": 1, "moe_intermediate_size": 8}
    path = write(disk_bytes=9, model={"start": sparse})
    assert "a target sizes dense decoders" in invoke("--target", path, code=1).stderr
    text = invoke("--target", tmp_path / "none.yaml", code=1).stderr
    assert "no such file; targets there:" in text
    assert "name a recipe, a --target, or both" in invoke(code=1).stderr


def test_cuts_keep_whole_blocks_and_lose_parameters():
    start = DenseModel(
        kind="dense",
        hidden_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=3072,
    ).sizes(Vocabulary(1000))
    whole, *cuts = list_cuts(start)
    assert whole.settings == {}
    assert cuts[0].settings == {"channels_ratio": 0.05, "multiple": 256}
    found = [item.parameters for item in (whole, *cuts)]
    assert found == sorted(found, reverse=True)
    assert len(set(map(str, (item.shape for item in cuts)))) == len(cuts)
    for design in cuts:
        assert design.shape["hidden_size"] % 256 == design.shape["intermediate_size"] % 256 == 0
        assert design.shape["head_dim"] == 128
        assert not FILE_FORMATS["gguf TQ1_0"].find_fault(design.shapes)


def test_fresh_designs_fit_every_format():
    designs = list_fresh("llama", 1000, 512)
    for design in designs[:: len(designs) // 40]:
        assert not FILE_FORMATS["gguf TQ1_0"].find_fault(design.shapes)
        assert design.shape["num_attention_heads"] == 4 * design.shape["num_key_value_heads"]


def test_what_a_runtime_does_not_write_is_not_proposed(invoke, write, tmp_path):
    plain = {"attention_bias": False, "mlp_bias": False}
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
    yarn["original_max_position_embeddings"] = 32
    make_checkpoint(tmp_path / "start", "llama", **plain, rope_parameters=yarn)
    path = write(disk_bytes=20 * MB, model={"start": str(tmp_path / "start")})
    found = read(invoke, path)
    assert {row["file_format"].partition(" ")[0] for row in found["asked"]} == {"onnx"}
    assert "not written into GGUF files" in found["impossible"]["gguf Q6_K"]
    assert by_format(found["fitting"])["gguf Q6_K"]["made_by"] == "fresh"


@pytest.mark.parametrize(
    ("sizes", "file_format", "fault"),
    [
        (QWEN, "gguf Q4_K_M", ""),
        (QWEN, "gguf TQ1_0", ""),
        (QWEN, "onnx ternary", ""),
        (replace(QWEN, model_type="limbeck_moe"), "gguf Q4_0", "no gguf file of architecture"),
        (replace(QWEN, head_dim=24), "onnx int4", "heads are 24 wide, no multiple of 16"),
        (Gemma3TextConfig(), "gguf TQ2_0", ""),
        (Gemma3TextConfig(), "onnx int4", ""),
        (Qwen2Config(use_sliding_window=True, sliding_window=8), "gguf F16", "with a window"),
        (GPT2Config(), "transformers int4", ""),
    ],
)
def test_runtimes_refuse_designs_as_check_does(sizes, file_format, fault):
    found = find_refusal(sizes, FILE_FORMATS[file_format])
    assert fault in found
    assert bool(fault) == bool(found)


def test_every_runtime_is_sized():
    assert {item.runtime for item in FILE_FORMATS.values()} == set(RUNTIMES)
