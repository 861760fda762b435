"""ONNX bundles: they answer as their checkpoint, are small, and say what is wrong with them."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from limbeck.contracts.errors import CheckpointError, ParityError, UnknownNameError
from limbeck.models.chat import ChatTemplate
from limbeck.runtimes import open_answerer
from limbeck.runtimes.bundle import read_bundle
from limbeck.runtimes.onnx import writer
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.parity import compare
from limbeck.runtimes.transformers import TransformersRuntime
from tests.support.tiny_checkpoints import QUESTIONS, make_checkpoint

KINDS = ["qwen3", "qwen3-untied", "qwen2", "llama", "mistral"]
FORMATS = ["float32", "int8"]


def make_bundle(folder, kind="qwen3", number_format="float32", **changes):
    make_checkpoint(folder / "checkpoint", kind, number_format, **changes)
    OnnxRuntime().write(folder / "checkpoint", folder / "bundle")
    return folder / "checkpoint", folder / "bundle"


def random_prompts(num, vocab):
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocab, size=length).tolist() for length in rng.integers(1, 40, num)]


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_predicts_as_its_checkpoint(kind, number_format, tmp_path):
    checkpoint, bundle = make_bundle(tmp_path, kind, number_format)
    reference = TransformersRuntime().open_model(checkpoint, num_threads=1)
    candidate = OnnxRuntime().open_model(bundle, num_threads=1)
    prompts = random_prompts(10, reference.model.config.vocab_size)
    found = compare(reference, candidate, prompts=prompts)
    assert found.num_positions > 150
    assert read_bundle(bundle).format == number_format
    if number_format == "float32":
        assert found.max_logit_difference < 1e-4 * found.max_logit
        assert found.argmax_agreement_ratio == 1.0
    else:
        # Single activations may fall to the other side of a rounding border: see stages/export.
        assert found.mean_kl < 1e-3
        assert found.argmax_agreement_ratio > 0.95


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-untied"])
def test_float_embeddings_beside_integers_stay_float(kind, tmp_path):
    checkpoint, bundle = make_bundle(tmp_path, kind, "int8", embeddings="float32")
    found = compare(
        TransformersRuntime().open_model(checkpoint, num_threads=1),
        OnnxRuntime().open_model(bundle, num_threads=1),
        prompts=[[1, 2, 3, 4], [5]],
    )
    assert found.mean_kl < 1e-3
    assert read_bundle(bundle).format == "int8"


# Two tokens of nearly one probability are decided by a single step; this int8 model has none such.
@pytest.mark.parametrize(("number_format", "kind"), [("float32", "qwen3"), ("int8", "qwen2")])
def test_answers_batches_streams_and_scores_as_its_checkpoint(number_format, kind, tmp_path):
    checkpoint, bundle = make_bundle(tmp_path, kind, number_format)
    left = open_answerer(checkpoint, num_threads=1)
    right = open_answerer(bundle, num_threads=1)
    together = right.answer(QUESTIONS, max_new_tokens=10)
    assert [answer.text for answer in together] == [
        answer.text for answer in left.answer(QUESTIONS, max_new_tokens=10)
    ]
    for question, answer in zip(QUESTIONS, together, strict=True):
        (alone,) = right.answer([question], max_new_tokens=10)
        assert alone.text == answer.text
        assert len(list(right.stream(question, max_new_tokens=10))) == answer.num_tokens
    options = ["药", "头晕", "What is it?"]
    assert right.score(QUESTIONS[0], options) == pytest.approx(
        left.score(QUESTIONS[0], options), abs=1e-4 if number_format == "float32" else 0.05
    )
    assert right.size().parameters == left.size().parameters
    assert right.num_threads() == 1


def test_an_int8_bundle_holds_one_byte_a_parameter(tmp_path):
    changes = {"hidden_size": 128, "intermediate_size": 256, "max_position_embeddings": 32768}
    _, bundle = make_bundle(tmp_path, "qwen3", "int8", **changes)
    size = open_answerer(bundle, num_threads=1).size()
    model = onnx.load(bundle / "model.onnx")
    large = {item.name: item for item in model.graph.initializer if np.prod(item.dims) > 1000}
    kinds = {name.rsplit(".", 1)[1]: item.data_type for name, item in large.items()}
    assert kinds == {"weight": onnx.TensorProto.UINT8, "scale": onnx.TensorProto.FLOAT}
    num_weights = sum(np.prod(item.dims) for name, item in large.items() if "weight" in name)
    assert 0.99 * size.parameters < num_weights <= size.parameters
    # Of 32 weights, a float32 scale takes an eighth of what they take.
    assert size.weight_bytes < 1.35 * size.parameters
    assert size.weight_bytes == (bundle / "model.onnx").stat().st_size


def test_a_row_of_zeros_multiplies_to_zero(tmp_path):
    make_checkpoint(tmp_path / "checkpoint", "qwen3", "int8")
    path = tmp_path / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][:] = 0
    save_file(tensors, path, metadata={"format": "pt"})
    OnnxRuntime().write(tmp_path / "checkpoint", tmp_path / "bundle")
    (logits,) = (
        OnnxRuntime()
        .open_model(tmp_path / "bundle", num_threads=1)
        .compute_logits([[1, 2]], start=0)
    )
    assert np.array_equal(logits, np.zeros_like(logits))


def test_the_bundle_stands_alone(tmp_path):
    checkpoint, bundle = make_bundle(tmp_path)
    expected = open_answerer(bundle, num_threads=1).answer(QUESTIONS[:1], max_new_tokens=5)
    bundle.rename(tmp_path / "elsewhere")
    for path in checkpoint.iterdir():
        path.unlink()
    code = (
        "import sys; from pathlib import Path; from limbeck.runtimes import open_answerer\n"
        f"answerer = open_answerer(Path({str(tmp_path / 'elsewhere')!r}), num_threads=1)\n"
        f"answers = answerer.answer({QUESTIONS[:1]!r}, max_new_tokens=5)\n"
        "assert not {'torch', 'transformers', 'onnx'} & sys.modules.keys()\n"
        "print(ascii(answers[0].text))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii(expected[0].text)
    files = {path.name for path in (tmp_path / "elsewhere").iterdir()}
    assert files == {
        "model.onnx",
        "bundle.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    }


def test_writing_twice_gives_the_same_bytes(tmp_path):
    checkpoint, bundle = make_bundle(tmp_path, "llama", "int8")
    OnnxRuntime().write(checkpoint, tmp_path / "again")
    for path in bundle.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_large_weights_go_into_their_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SINGLE_FILE_BYTES", 10_000)
    checkpoint, bundle = make_bundle(tmp_path)
    assert (bundle / "model.onnx").stat().st_size < 60_000
    reference = TransformersRuntime().open_model(checkpoint, num_threads=1)
    candidate = OnnxRuntime().open_model(bundle, num_threads=1)
    found = compare(reference, candidate, prompts=[[1, 2, 3]])
    assert found.max_logit_difference < 1e-4 * found.max_logit
    assert candidate.size().weight_bytes > 4 * candidate.size().parameters


UNSUPPORTED = {
    "heads": ({"head_dim": 8}, "multiples of 16"),
    "architecture": ({"model_type": "gpt2"}, "supported: .*llama, mistral"),
    "activation": ({"hidden_act": "gelu"}, "'gelu'"),
    "rotary": (
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        "'dynamic'",
    ),
    "width": ({"intermediate_size": 64}, r"gate_proj.weight.*\[48, 32\], expected \[64, 32\]"),
    "layers": ({"num_hidden_layers": 1, "layer_types": None}, "belong to no part"),
    "untied": ({"tie_word_embeddings": False}, "lm_head.weight' is missing"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_written_is_named(name, tmp_path):
    make_checkpoint(tmp_path)
    change, message = UNSUPPORTED[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        OnnxRuntime().write(tmp_path, tmp_path / "bundle")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_truncated_checkpoints_are_named(name, share, tmp_path):
    make_checkpoint(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        OnnxRuntime().write(tmp_path, tmp_path / "bundle")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    "name", ["model.onnx", "bundle.json", "tokenizer.json", "generation_config.json"]
)
def test_truncated_bundles_are_named(name, share, tmp_path):
    _, bundle = make_bundle(tmp_path)
    path = bundle / name
    path.write_bytes(path.read_bytes()[: max(0, int(share * path.stat().st_size) - 2)])
    with pytest.raises(CheckpointError, match=str(path)):
        open_answerer(bundle, num_threads=1)


@pytest.mark.parametrize(
    "name", ["model.onnx", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_missing_files_are_named(name, tmp_path):
    _, bundle = make_bundle(tmp_path)
    (bundle / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        open_answerer(bundle, num_threads=1)


def test_other_content_is_named(tmp_path):
    _, bundle = make_bundle(tmp_path)
    (bundle / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(CheckpointError, match="template"):
        open_answerer(bundle, num_threads=1)
    (bundle / "chat_template.jinja").write_text("{{ raise_exception('no users') }}")
    with pytest.raises(CheckpointError, match="no users"):
        open_answerer(bundle, num_threads=1).answer(["药"], max_new_tokens=1)
    said = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**said, "runtime": "onyx"}))
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        open_answerer(bundle, num_threads=1)
    onnx.save_model(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []), ir_version=10),
        bundle / "model.onnx",
    )
    with pytest.raises(CheckpointError, match="export"):
        OnnxRuntime().open_model(bundle, num_threads=1)


def test_a_tokenizer_that_needs_code_is_refused(tmp_path, monkeypatch):
    make_checkpoint(tmp_path)
    render = ChatTemplate.render
    monkeypatch.setattr(ChatTemplate, "render", lambda *args: render(*args) + "x")
    with pytest.raises(ParityError, match="render"):
        OnnxRuntime().write(tmp_path, tmp_path / "bundle")
