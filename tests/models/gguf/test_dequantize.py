"""GGUF files become the models that llama.cpp runs, or are refused by name."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.checkpoints import load_model
from limbeck.models.gguf.compare import compare_predictions, kl_of_likeliest
from limbeck.models.gguf.dequantize import describe_gguf, load_gguf
from limbeck.models.gguf.header import read_header
from limbeck.models.gguf.llama_cpp import open_llama_cpp
from limbeck.models.tokenizers import load_tokenizer
from limbeck.runtimes.gguf.runtime import GgufRuntime
from limbeck.stages import dequantize
from tests.support.families import make_family
from tests.support.gguf_files import unpack_smollm2, write_llama

Kind = gguf.GGMLQuantizationType


def run(file, tmp_path, **changes) -> tuple[dict[str, Any], Path]:
    folder = tmp_path / "artifact"
    folder.mkdir()
    config = dequantize.Config(stage="dequantize", file=file, **changes)
    return dequantize.run(config, work=Work("taken", folder, tmp_path / "state")), folder


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0])
def test_the_checkpoint_predicts_what_llama_cpp_predicts(kind, tmp_path):
    file = tmp_path / "tiny.gguf"
    original = write_llama(file, kind=kind)
    metrics, folder = run(file, tmp_path)
    assert metrics["types"] == [kind.name]
    assert metrics["llama_cpp_num_positions"] >= 20
    assert metrics["llama_cpp_mean_kl"] < 0.05
    model = load_model(folder)
    ids = torch.arange(3, 60).unsqueeze(0)
    if kind == Kind.F32:
        torch.testing.assert_close(model(ids).logits, original(ids).logits, atol=1e-4, rtol=1e-4)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert load_tokenizer(folder).encode("the 12", add_special_tokens=False)


def test_a_wrong_model_is_a_parity_error(tmp_path):
    file = tmp_path / "tiny.gguf"
    write_llama(file)
    header = read_header(file)
    tokenizer, model = load_gguf(header)
    with torch.no_grad():
        rows = model.model.layers[0].self_attn.q_proj.weight
        rows.copy_(rows.roll(1, dims=0))
    with (
        open_llama_cpp(file) as reference,
        pytest.raises(ParityError, match=r"does not predict what llama\.cpp predicts"),
    ):
        compare_predictions(model, tokenizer=tokenizer, reference=reference, header=header)


def test_a_tokenizer_that_cannot_be_rebuilt_is_refused(tmp_path):
    file = tmp_path / "tiny.gguf"
    write_llama(file, pre="deepseek-coder")
    with pytest.raises(CheckpointError, match=r"deepseek-coder\) cannot be rebuilt.*`tokenizer`"):
        run(file, tmp_path)


def test_damage_is_named(tmp_path):
    whole, file = tmp_path / "tiny.gguf", tmp_path / "damaged.gguf"
    write_llama(whole)
    data = whole.read_bytes()
    for content, message in (
        (b"", "cannot be read as a GGUF file"),
        (b"PK\x03\x04 a zip file", "begins with"),
        (data[:4] + b"\x09" + data[5:], "version 9"),
        (data[:2000], "damaged or cut short"),
        (data[:-1000], "it was cut short, so copy it again"),
    ):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_header(file)
    with pytest.raises(CheckpointError, match="No such file"):
        read_header(tmp_path / "missing.gguf")


def test_scaled_positions_that_would_be_lost_are_refused(tmp_path):
    file = tmp_path / "tiny.gguf"
    write_llama(file, llama__rope__scaling__type="yarn")
    with pytest.raises(CheckpointError, match=r"scales its rotary positions \(yarn\)"):
        load_gguf(read_header(file))


FIVE_TO_ONE = {
    "num_hidden_layers": 6,
    "layer_types": [*["sliding_attention"] * 5, "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    },
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Gemma 3", FIVE_TO_ONE),
        ("Gemma 2", {"final_logit_softcapping": 5.0}),
        ("Qwen3", {"head_dim": 32}),
        ("Qwen3-MoE", {"norm_topk_prob": True, "moe_intermediate_size": 32}),
    ],
)
def test_what_is_written_is_read_again(family, changes, tmp_path):
    """Widths, caps, windows and scales for which transformers has defaults of its own."""
    source = make_family(tmp_path / "model", name=family, **changes)
    GgufRuntime().write(source, tmp_path / "bundle")
    found = load_gguf(read_header(tmp_path / "bundle" / "model.gguf"))[1]
    ids = torch.arange(3, 60).unsqueeze(0)
    with torch.no_grad():
        expected = load_model(source)(ids).logits
        torch.testing.assert_close(found(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_experts_that_would_be_lost_are_refused(tmp_path):
    source = make_family(tmp_path / "model", name="Mixtral")
    GgufRuntime().write(source, tmp_path / "bundle")
    with pytest.raises(CheckpointError, match="has experts, and transformers reads"):
        describe_gguf(read_header(tmp_path / "bundle" / "model.gguf"))


def test_kl_counts_the_other_tokens_as_one():
    log_probs = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    known = {0: float(log_probs[0]), 1: float(log_probs[1])}
    assert kl_of_likeliest(known, log_probs=log_probs) == pytest.approx(0, abs=1e-6)
    other = torch.tensor([0.25, 0.25, 0.25, 0.25]).log()
    expected = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()
    assert kl_of_likeliest(known, log_probs=other) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.slow
def test_smollm2_of_the_registry():
    metrics, folder = unpack_smollm2()
    assert metrics["pre_tokenizer"] == "smollm"
    assert metrics["llama_cpp_mean_kl"] < 0.01
    assert load_tokenizer(folder).chat_template
