"""GGUF bundles predict as their checkpoints do, hold integers as they are, and name damage."""

import signal

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import Qwen3Config

from limbeck.contracts.answerer import alternate
from limbeck.contracts.errors import CheckpointError
from limbeck.models.gguf.header import read_header
from limbeck.models.gguf.llama_cpp import open_llama_cpp
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.tensors import QuantizedTensor
from limbeck.quantization.formats.two_bits import Ternary
from limbeck.runtimes import open_answerer, open_chat_model
from limbeck.runtimes.architecture import describe_architecture, read_architecture
from limbeck.runtimes.gguf.limits import check_format, check_model
from limbeck.runtimes.gguf.model import GgufFile
from limbeck.runtimes.gguf.packing import pack_blocks, pack_halves, permute_rows, unpack
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from tests.support import tiny_recipe
from tests.support.gguf_bundles import measure
from tests.support.tiny_checkpoints import QUESTIONS, make_checkpoint


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """A checkpoint of integers whose feed-forward width, 48, is no multiple of a block."""
    folder = tmp_path_factory.mktemp("int8")
    make_checkpoint(folder / "checkpoint", "llama", "int8")
    bundle = GgufRuntime().write(folder / "checkpoint", folder / "bundle")
    return folder, bundle


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    make_checkpoint(folder / "checkpoint", "qwen3")
    GgufRuntime().write(folder / "checkpoint", folder / "bundle")
    return folder


@pytest.mark.parametrize(
    ("weights", "limit"), [("F16", 1e-4), ("BF16", 2e-3), ("Q8_0", 0.01), ("Q4_1", 0.5)]
)
def test_each_type_is_as_near_as_its_rounding_lets_it_be(weights, limit, floats, tmp_path):
    bundle = GgufRuntime().write(floats / "checkpoint", tmp_path / "bundle", weights=weights)
    types = {item.type for item in read_header(tmp_path / "bundle" / MODEL).tensors}
    assert types == {weights, "F32", *(["Q8_0"] if weights == "Q4_1" else [])}
    assert bundle.runtime_settings["weights"] == weights
    assert measure(floats / "checkpoint", tmp_path / "bundle").mean_kl < limit


def test_a_folder_named_as_a_phi_is_no_phi_to_llama_cpp(floats, tmp_path):
    checkpoint = (floats / "checkpoint").rename(floats / "my-Phi-3")
    try:
        GgufRuntime().write(checkpoint, tmp_path / "bundle")
    finally:
        checkpoint.rename(floats / "checkpoint")
    assert read_header(tmp_path / "bundle" / MODEL).values["general.name"] == "model"


def test_integers_are_carried_as_they_are(int8):
    folder, bundle = int8
    stored = load_file(folder / "checkpoint" / "model.safetensors")
    file = {item.name: item for item in gguf.GGUFReader(folder / "bundle" / MODEL).tensors}
    heads = {"q_proj": 4, "k_proj": 1}
    for name, ours in (("attn_q", "self_attn.q_proj"), ("ffn_down", "mlp.down_proj")):
        codes = stored[f"model.layers.1.{ours}.weight"]
        scale = stored[f"model.layers.1.{ours}.weight_scale"].astype(np.float16)
        if (num_heads := heads.get(ours.split(".")[1])) is not None:
            codes, scale = (permute_rows(item, num_heads=num_heads) for item in (codes, scale))
        blocks = file[f"blk.1.{name}.weight"].data.reshape(len(codes), -1, 34)
        found = blocks[..., 2:].reshape(len(codes), -1).view(np.int8)
        assert np.array_equal(found[:, : codes.shape[1]], codes)
        assert not found[:, codes.shape[1] :].any()
        assert np.array_equal(blocks[..., :2].copy().view(np.float16)[..., 0], scale)
    assert bundle.format == "int8"
    assert bundle.runtime_settings["num_padded_channels"] == 16
    assert 0 < bundle.runtime_settings["max_scale_rounding"] < 2**-10
    assert measure(folder / "checkpoint", folder / "bundle").mean_kl < 0.01


def read_weights(module, *, number_format, num_heads):
    """What a layer's codes stand for, its rows in llama.cpp's order."""
    codes = QuantizedTensor(module.weight, module.weight_scale, module.in_features)
    weights = number_format.dequantize(codes).numpy()
    return weights if num_heads is None else permute_rows(weights, num_heads=num_heads)


@pytest.mark.parametrize("embeddings", ["int8", "int4", "float32"])
def test_integers_of_four_bits_are_carried_as_they_are(embeddings, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    made = make_checkpoint(checkpoint, "llama", "int4", embeddings)
    bundle = GgufRuntime().write(checkpoint, tmp_path / "bundle")
    file = {item.name: item for item in gguf.GGUFReader(tmp_path / "bundle" / MODEL).tensors}
    layer = made.model.layers[1]
    number_format = Int4(kind="int4")
    for name, module, num_heads in (
        ("attn_k", layer.self_attn.k_proj, 1),
        ("ffn_down", layer.mlp.down_proj, None),
    ):
        expected = read_weights(module, number_format=number_format, num_heads=num_heads)
        item = file[f"blk.1.{name}.weight"]
        found = gguf.dequantize(item.data, item.tensor_type)[:, : expected.shape[1]]
        assert np.abs(found - expected).max() < 2**-10 * np.abs(expected).max()
    kinds = {"int8": "Q8_0", "int4": "Q4_0", "float32": "F32"}
    assert file["token_embd.weight"].tensor_type.name == kinds[embeddings]
    assert (bundle.format, bundle.runtime_settings["weights"]) == ("int4", "Q4_0")
    assert measure(checkpoint, tmp_path / "bundle").mean_kl < 0.02


@pytest.fixture(scope="module")
def ternary(tmp_path_factory):
    """A checkpoint whose feed-forward width, 400, is no multiple of a block."""
    folder = tmp_path_factory.mktemp("ternary") / "checkpoint"
    sizes = {"hidden_size": 256, "intermediate_size": 400, "num_key_value_heads": 4}
    return folder, make_checkpoint(
        folder, "llama", "ternary", "int4", **sizes, num_attention_heads=16
    )


@pytest.mark.parametrize("kind", ["TQ2_0", "TQ1_0"])
def test_ternary_weights_are_carried_to_the_bit(kind, ternary, tmp_path):
    checkpoint, made = ternary
    bundle = GgufRuntime().write(checkpoint, tmp_path, weights=kind)
    file = {item.name: item for item in gguf.GGUFReader(tmp_path / MODEL).tensors}
    number_format = Ternary(kind="ternary")
    layer = made.model.layers[1]
    for name, module, num_heads in (
        ("attn_q", layer.self_attn.q_proj, 16),
        ("attn_v", layer.self_attn.v_proj, None),
        ("ffn_up", layer.mlp.up_proj, None),
        ("ffn_down", layer.mlp.down_proj, None),
    ):
        expected = read_weights(module, number_format=number_format, num_heads=num_heads)
        item = file[f"blk.1.{name}.weight"]
        assert item.tensor_type.name == kind
        found = gguf.dequantize(item.data, item.tensor_type)
        rows, columns = expected.shape
        assert np.array_equal(found[:rows, :columns], expected)
        assert not found[rows:].any() and not found[:, columns:].any()
    assert file["token_embd.weight"].tensor_type.name == "Q4_0"
    assert (bundle.format, bundle.runtime_settings["num_padded_channels"]) == ("ternary", 112)
    found = measure(checkpoint, tmp_path)
    assert found.mean_kl < 0.02 and found.argmax_agreement_ratio > 0.9


def test_stock_llama_cpp_answers_as_the_ternary_checkpoint_does(ternary, tmp_path):
    checkpoint, _ = ternary
    GgufRuntime().write(checkpoint, tmp_path)
    theirs = open_chat_model(checkpoint, num_threads=1, num_rows=1)
    with open_llama_cpp(tmp_path / MODEL) as server:
        for text in QUESTIONS:
            ids = theirs.chat.encode(text)
            (logits,) = theirs.model.compute_logits([ids], start=len(ids) - 1)
            likeliest = server.next_tokens(ids, num=5)
            if likeliest:  # or one that is as likely but for the rounding of activations
                assert logits[0].max() - logits[0][next(iter(likeliest))] < 0.2


@pytest.mark.parametrize(
    ("number_format", "weights", "hidden", "message"),
    [
        ("ternary", "format", 128, "hidden_size is 128, and TQ2_0 has blocks of 256"),
        ("ternary", "TQ1_0", 288, "hidden_size is 288, and TQ1_0 has blocks of 256"),
        ("ternary", "Q4_0", 256, "TQ2_0 or TQ1_0 holds as they are; Q4_0 would round"),
        ("float32", "TQ2_0", 256, "a model has to be trained"),
    ],
)
def test_what_ternary_types_cannot_hold_is_refused(number_format, weights, hidden, message):
    config = Qwen3Config(hidden_size=hidden)
    found = describe_architecture(
        config, number_format=number_format, runtime=GgufRuntime(), place="model"
    )
    with pytest.raises(CheckpointError, match=message):
        check_model(found, number_format=number_format, weights=weights, place="model")


def test_other_two_bit_weights_are_refused():
    config = Qwen3Config()
    with pytest.raises(CheckpointError, match="'int2' cannot be exported to gguf"):
        describe_architecture(config, number_format="int2", runtime=GgufRuntime(), place="model")
    found = describe_architecture(
        config, number_format="ternary", runtime=GgufRuntime(), place="model"
    )
    with pytest.raises(CheckpointError, match="quantise with `block_size: 256`"):
        check_format(Ternary(kind="ternary", block_size=64), architecture=found, place="model")


def test_floats_beside_integers_stay_floats(tmp_path):
    make_checkpoint(tmp_path / "checkpoint", "qwen3-untied", "int8", "float32")
    GgufRuntime().write(tmp_path / "checkpoint", tmp_path / "bundle")
    types = {item.name: item.type for item in read_header(tmp_path / "bundle" / MODEL).tensors}
    assert types["token_embd.weight"] == types["output.weight"] == "F32"
    assert types["blk.0.attn_q.weight"] == "Q8_0"


def test_a_block_is_its_scale_and_its_integers():
    codes = np.arange(-32, 32, dtype=np.int8).reshape(1, 64)
    scale = np.array([[0.5, 0.25]], np.float16)
    rows = gguf.dequantize(pack_blocks(codes, scale), gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(rows, codes * np.repeat(scale.astype(np.float32), 32, axis=1))
    packed = np.arange(32, dtype=np.uint8).reshape(1, 32)
    found = gguf.dequantize(
        pack_halves(unpack(packed, bits=4), scale), gguf.GGMLQuantizationType.Q4_0
    )
    expected = np.stack([packed & 15, packed >> 4], axis=-1).reshape(1, 64).astype(np.float32) - 8
    assert np.array_equal(found, expected * np.repeat(scale.astype(np.float32), 32, axis=1))


def test_llama_cpps_own_server_reads_the_file(floats):
    answerer = open_chat_model(floats / "bundle", num_threads=1, num_rows=1)
    with open_llama_cpp(floats / "bundle" / MODEL) as server:
        for text in QUESTIONS:
            ids = answerer.chat.encode(text)
            assert server.encode(text) == ids
            likeliest = server.next_tokens(ids, num=5)
            (logits,) = answerer.model.compute_logits([ids], start=len(ids) - 1)
            if likeliest:
                assert next(iter(likeliest)) == int(logits[0].argmax())


def test_answers_scores_and_streams(floats):
    ours = open_answerer(floats / "bundle", num_threads=1)
    theirs = open_answerer(floats / "checkpoint", num_threads=1)
    found = [ours.answer(QUESTIONS, max_new_tokens=5), theirs.answer(QUESTIONS, max_new_tokens=5)]
    assert [item.text for item in found[0]] == [item.text for item in found[1]]
    scores = [item.score(QUESTIONS[0], ["头晕", "a"]) for item in (ours, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    pieces = ours.stream(QUESTIONS[0], max_new_tokens=5)
    assert "".join(piece for piece, _ in pieces) == found[0][0].text


def test_a_cache_grows_where_it_is_full(floats, monkeypatch):
    monkeypatch.setattr("limbeck.runtimes.gguf.model.SMALLEST_CELLS", 256)
    model = GgufRuntime().open_model(floats / "bundle", num_threads=1)
    rows = [list(range(5, 105)), list(range(20, 120)), list(range(30, 60))]
    session = model.open_session(num_slots=4)
    session.admit(rows)
    for row in rows:
        row.append(7)
    session.step([7] * 3)
    admitted = session.admit([rows[0]])  # needs more than 256 cells
    expected = model.compute_logits(rows, start=0)
    assert np.abs(admitted.logits[0] - expected[0][-1]).max() < 1e-4
    logits = session.step([8] * 4)
    expected = model.compute_logits([[*row, 8] for row in [*rows, rows[0]]], start=0)
    assert np.abs(logits - [item[-1] for item in expected]).max() < 1e-4


def test_integers_are_not_rounded_again(int8, tmp_path):
    folder, _ = int8
    with pytest.raises(CheckpointError, match="F16 would round them again"):
        GgufRuntime().write(folder / "checkpoint", tmp_path / "bundle", weights="F16")
    with pytest.raises(CheckpointError, match="quantise with `block_size: 32`"):
        check_format(
            Int8(kind="int8", block_size="row"),
            architecture=read_architecture(folder / "checkpoint", runtime=GgufRuntime()),
            place="model",
        )


def test_damage_is_named(floats, tmp_path):
    whole = floats / "bundle"
    data = (whole / MODEL).read_bytes()
    for item in whole.iterdir():
        (tmp_path / item.name).write_bytes(item.read_bytes())
    for content, message in (
        (b"PK\x03\x04 a zip file", "begins with"),
        (data[:2000], "damaged or cut short"),
        (data[:-1000], "it was cut short"),
        (data.replace(b"blk.1.attn_q.", b"blk.1.attn_x."), r"is not the file that bundle\.json"),
    ):
        (tmp_path / MODEL).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            GgufRuntime().open_model(tmp_path, num_threads=1)
    (tmp_path / MODEL).unlink()
    with pytest.raises(CheckpointError, match=r"no model\.gguf"):
        GgufRuntime().open_model(tmp_path, num_threads=1)


def test_a_file_of_others_that_llama_cpp_cannot_load_is_named(floats, tmp_path):
    data = (floats / "bundle" / MODEL).read_bytes()
    path = tmp_path / "other.gguf"
    path.write_bytes(data.replace(b"blk.1.attn_q.", b"blk.1.attn_x."))
    with pytest.raises(CheckpointError, match=r"llama\.cpp cannot load this file: .*attn_q"):
        GgufFile(path)


def test_no_damage_of_the_header_is_answered_from(floats, tmp_path):
    """Whatever byte is another: refused by name, and no fault of native code."""
    for item in (floats / "bundle").iterdir():
        (tmp_path / item.name).write_bytes(item.read_bytes())
    data = (floats / "bundle" / MODEL).read_bytes()
    start = min(item.offset for item in read_header(floats / "bundle" / MODEL).tensors)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, start, size=100):
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / MODEL).write_bytes(damaged)
        with pytest.raises(CheckpointError):
            GgufRuntime().open_model(tmp_path, num_threads=1)


def test_llama_cpp_renders_the_template_as_the_bundle_does(floats):
    answerer = open_chat_model(floats / "bundle", num_threads=1, num_rows=1)
    with open_llama_cpp(floats / "bundle" / MODEL) as server:
        for turns in (("药",), ("高血压？", "头晕。", "And what else?")):
            messages = alternate(turns)
            said = [{"role": item.role, "content": item.content} for item in messages]
            rendered = server._post("/apply-template", {"messages": said})["prompt"]
            assert rendered == answerer.chat.template.render(messages)


def test_a_killed_write_leaves_no_bundle(floats, tmp_path):
    code, folder, warm = tmp_path / "code.py", tmp_path / "bundle", tiny_recipe.warm()
    folder.mkdir()
    code.write_text(f"""
import os, signal
from pathlib import Path
from limbeck.runtimes.gguf import tensors
from limbeck.runtimes.gguf.runtime import GgufRuntime

tensors.round_rows = lambda rows, **_: os.kill(os.getpid(), signal.SIGKILL)
GgufRuntime().write(Path({str(floats / "checkpoint")!r}), Path({str(folder)!r}))
""")
    number = warm.start(code, output=tmp_path / "log", call="runpy:run_path")
    assert warm.wait(number) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not (folder / MODEL).exists() and not (folder / "bundle.json").exists()
