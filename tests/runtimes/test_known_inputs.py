"""What export refuses before anything runs names the package and the extra that brings it."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast, Qwen3Config

from limbeck.models.known import KnownModel, KnownTokenizer
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.runtimes import known_inputs
from limbeck.runtimes.known_inputs import refuse_export


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    present = known_inputs.importlib.util.find_spec

    def find(name, *rest):
        return None if name == "xllamacpp" else present(name, *rest)

    monkeypatch.setattr(known_inputs.importlib.util, "find_spec", find)
    model = KnownModel("student", tokenizer=None, read=Qwen3Config)
    (refusal,) = refuse_export(model, runtime="gguf")
    assert refusal.field == "runtime"
    assert refusal.message == "gguf needs xllamacpp; install with `pip install 'limbeck[gguf]'`"


@pytest.mark.parametrize(
    ("codes", "weights", "message"),
    [
        (Int8(kind="int8", block_size="row"), "format", "whole rows, those of Q8_0 in blocks of"),
        (Ternary(kind="ternary", block_size=64), "format", "quantise with `block_size: 256`"),
        (Ternary(kind="ternary"), "TQ1_0", "hidden_size is 576, and TQ1_0 has blocks of 256"),
        (Int2(kind="int2"), "format", "'int2' cannot be exported to gguf"),
        (None, "TQ2_0", "a model has to be trained"),
        (None, "Q2_K", "Q2_K"),
    ],
)
def test_blocks_that_a_gguf_file_does_not_hold_are_refused_before_anything_runs(
    codes, weights, message
):
    model = KnownModel(
        "student",
        tokenizer=None,
        read=lambda: Qwen3Config(hidden_size=576, intermediate_size=1536),
        codes=codes,
    )
    (refusal,) = refuse_export(model, runtime="gguf", weights=weights)
    assert message in refusal.message
    assert not list(refuse_export(model, runtime="onnx"))


@pytest.mark.parametrize("runtime", ["onnx", "gguf"])
def test_positions_that_change_with_the_length_are_refused_with_what_to_do(runtime):
    rotary = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = KnownModel("base", None, lambda: Qwen3Config(rope_parameters=rotary))
    messages = [refusal.message for refusal in refuse_export(model, runtime=runtime)]
    assert messages == [
        "base: rotary embedding 'dynamic' cannot be exported; supported: default, linear, llama3, "
        "yarn (distil it into a student built so first, or serve the checkpoint itself)"
    ]


def save_byt5(folder):
    ByT5Tokenizer().save_pretrained(folder)


def save_unigram(folder):
    backend = Tokenizer(Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0)], unk_id=0))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(folder)


@pytest.mark.parametrize(
    ("save", "runtime", "message"),
    [
        (save_byt5, "onnx", "a ByT5Tokenizer, is code of transformers"),
        (save_byt5, "gguf", "a ByT5Tokenizer, is code of transformers"),
        (save_unigram, "gguf", "of kind Unigram cannot be carried into a GGUF file"),
        (save_unigram, "onnx", ""),
    ],
)
def test_tokenizers_that_no_bundle_carries_are_refused(save, runtime, message, tmp_path):
    save(tmp_path)
    model = KnownModel("student", KnownTokenizer("student", tmp_path), read=Qwen3Config)
    messages = [refusal.message for refusal in refuse_export(model, runtime=runtime)]
    assert len(messages) == bool(message)
    assert message in "".join(messages)
