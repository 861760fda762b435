"""Weights that a config does not describe are refused, from the files' heads and when loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import check_weights, load_model, open_config
from limbeck.models.weight_files import count_weight_bytes
from tests.support.families import make_family

FILE = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_family(
        tmp_path_factory.mktemp("whole") / "model",
        name="Llama with biases",
        num_hidden_layers=3,
        hidden_size=32,
        head_dim=8,
    )


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def describe(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add(folder, **tensors):
    save_file(load_file(folder / FILE) | tensors, folder / FILE, metadata={"format": "pt"})


def save_as_bin(folder):
    torch.save(load_file(folder / FILE), folder / "pytorch_model.bin")
    (folder / FILE).unlink()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"attention_bias": False}, r"layers\.0\.self_attn\.k_proj\.bias"),
        ({"num_hidden_layers": 2}, r"layers\.2\.input_layernorm\.weight"),
    ],
)
def test_weights_that_would_be_left_out_are_named(folder, kind, changes, left_out):
    if kind == "bin":
        save_as_bin(folder)
    describe(folder, **changes)
    for read in (check_weights, load_model):
        with pytest.raises(CheckpointError, match=left_out):
            read(folder)


def test_heads_of_other_tasks_and_derived_tensors_are_let_pass(folder):
    add(folder, **{"v_head.weight": torch.ones(1, 32), "model.mtp.0.weight": torch.ones(2)})
    add(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    check_weights(folder)


def test_a_head_that_the_config_ties_is_the_embeddings(folder):
    describe(folder, tie_word_embeddings=True)
    for read in (check_weights, load_model):
        with pytest.raises(CheckpointError, match="set tie_word_embeddings to false"):
            read(folder)
    table = load_file(folder / FILE)["model.embed_tokens.weight"]
    add(folder, **{"lm_head.weight": table.clone()})
    check_weights(folder)
    model = load_model(folder)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "none of ours"])
def test_codes_of_other_tools_are_refused_by_name(folder, method):
    describe(folder, quantization_config={"quant_method": method})
    for read in (open_config, load_model):
        with pytest.raises(CheckpointError, match=f"codes of {method!r}"):
            read(folder)


def test_only_what_transformers_reads_counts_as_weights(folder):
    expected = (folder / FILE).stat().st_size
    for name in ("consolidated.safetensors", "pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(b"x" * 1000)
    assert count_weight_bytes(folder) == expected
    (folder / FILE).unlink()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        check_weights(folder)


def test_code_beside_a_model_is_not_run_or_asked_about(folder):
    describe(folder, model_type="strange", auto_map={"AutoConfig": "configuration.StrangeConfig"})
    with pytest.raises(CheckpointError, match=r"needs code of its own \(auto_map\)"):
        open_config(folder)
