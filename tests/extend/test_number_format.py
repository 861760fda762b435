"""The format of the page trains, stores, loads, answers and is sized: one module, one line."""

import pytest
import torch
from safetensors.torch import load_file

from docs.extend.examples.number_format import Int4Blocks
from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.registry import FORMATS
from limbeck.models.checkpoints import load_model, read_number_format, save_checkpoint
from limbeck.models.logit_parity import compare_models
from limbeck.runtimes import open_answerer
from limbeck.runtimes.onnx.writer import write
from limbeck.sizing.parameters import size_model
from limbeck.stages import quantize
from tests.support.artifacts import make_artifact

INT4 = Int4Blocks(kind="int4_blocks")


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(FORMATS, "int4_blocks", "docs.extend.examples.number_format:Int4Blocks")


@pytest.mark.parametrize("columns", [5, 32, 70])
def test_weights_come_back_within_half_a_step(columns):
    weight = torch.randn(9, columns)
    stored = INT4.quantize(weight)
    found = INT4.dequantize(stored)
    step = stored.scale.float().repeat_interleave(32, dim=-1)[:, :columns]
    assert ((found - weight).abs() <= 0.51 * step).all()
    assert torch.equal(INT4.dequantize(INT4.quantize(found)), found)
    assert torch.equal(INT4.fake(weight), found)
    assert torch.equal(
        INT4.dequantize(INT4.quantize(torch.zeros(2, columns))), torch.zeros(2, columns)
    )


def test_it_trains_stores_loads_answers_and_is_sized(tmp_path, corpus, dense_config, tokenizer):
    dense = dense_config.replace(head_dim=16).build(tokenizer=tokenizer, seed=1)
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "student")
    folder, state = tmp_path / "artifact", tmp_path / "state"
    for path in (folder, state):
        path.mkdir()
    inputs = {
        "checkpoint": (make_artifact(tmp_path / "student", "checkpoint"),),
        "corpus": (make_artifact(corpus, "corpus"),),
    }
    config = quantize.Config.model_validate(
        {
            "stage": "quantize",
            "checkpoint": "student",
            "corpus": "corpus",
            "scheme": {"kind": "int4_blocks"},
            "objective": {"kind": "next_token"},
            "training": {"max_steps": 3, "warmup_steps": 1},
        }
    )
    metrics = quantize.run(config, work=Work("int4", folder, state, inputs))
    assert metrics["parity_logit_difference"] < 1e-5
    assert read_number_format(folder) == INT4
    model = load_model(folder)
    ids = torch.arange(3, 12).view(1, -1)
    assert compare_models(model, load_model(folder), input_ids=ids).max_logit_difference == 0
    assert open_answerer(folder, num_threads=1).answer(["高血压"], max_new_tokens=2)
    stored = load_file(folder / "model.safetensors")
    matrices = sum(item.nbytes for item in stored.values() if item.dtype == torch.uint8)
    assert matrices < dense.num_parameters()
    with pytest.raises(CheckpointError, match="'int4_blocks' cannot be exported"):
        write(folder, folder=tmp_path / "bundle")


def test_a_plan_sizes_it_in_its_place(dense_config, tokenizer):
    wide = dense_config.replace(hidden_size=64, intermediate_size=128)
    size = size_model(wide.build(tokenizer=tokenizer, seed=0).config, context_tokens=8)
    names = [item.name for item in size.formats]
    assert names[2:5] == ["int8", "int4", "int4_blocks"]
    sized = {item.name: item.total_bytes for item in size.formats}
    assert sized["int8"] > sized["int4_blocks"]
