"""Whether the weights of a folder are all there."""

import json

import pytest
import torch
from safetensors.torch import save_file

from limbeck.contracts.errors import CheckpointError
from limbeck.models.weight_files import check_weight_files

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for key, name in names.items():
        save_file({key: torch.ones(64, 64)}, tmp_path / name)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    return tmp_path


def test_whole_shards_pass(folder):
    check_weight_files(folder)


def test_a_missing_shard_is_named(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00002"):
        check_weight_files(folder)


def test_a_shard_cut_short_is_named(folder):
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors: is cut short"):
        check_weight_files(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(folder, content):
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match="names no weights"):
        check_weight_files(folder)


def test_other_tools_weights_are_left_alone(tmp_path):
    with pytest.raises(CheckpointError, match="has no weights"):
        check_weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    check_weight_files(tmp_path)
