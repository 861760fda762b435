"""Layers of different formats in one model: by hand or chosen, stored, and in every bundle."""

import json

import pytest

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.gguf.header import read_header
from limbeck.models.gptq.rounding import round_by_gptq
from limbeck.models.logit_parity import compute_logits, random_tokens
from limbeck.models.mixed_precision.choice import choose_layers, count_bytes
from limbeck.models.mixed_precision.config import MixedPrecision
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.qat import convert, prepare_for_qat
from limbeck.quantization.storage import WEIGHTS
from limbeck.runtimes.architecture import read_architecture
from limbeck.runtimes.gguf.limits import check_format
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.parity import compare
from limbeck.runtimes.transformers import TransformersRuntime
from limbeck.stages import quantize
from tests.support.tiny_checkpoints import make_checkpoint, make_model, make_tokenizer

SIZES = {"hidden_size": 64, "intermediate_size": 256}
MIXED = Int4.model_validate(
    {
        "kind": "int4",
        "layers": {
            "*.v_proj": {"kind": "int8"},
            "re:.*[.]1[.].*down_proj": {"kind": "ternary", "scale": "least_squares"},
        },
    }
)
TOKENS = random_tokens(vocab=100, num_prompts=2, num_tokens=24)


def make_llama(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    return make_model("llama", tokenizer, **SIZES), tokenizer


def test_every_runtime_computes_with_the_format_of_each_layer(tmp_path):
    model, tokenizer = make_llama(tmp_path)
    model = convert(model, number_format=MIXED)
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(model, tokenizer=tokenizer, folder=checkpoint)
    reference = TransformersRuntime().open_model(checkpoint, num_threads=1)
    assert (
        compute_logits(load_model(checkpoint), input_ids=TOKENS)
        == compute_logits(model, input_ids=TOKENS)
    ).all()
    for runtime in (OnnxRuntime(), GgufRuntime()):
        runtime.write(checkpoint, tmp_path / runtime.name)
        found = runtime.open_model(tmp_path / runtime.name, num_threads=1)
        difference = compare(reference, found, prompts=TOKENS.tolist())
        assert difference.mean_kl < 0.01 and difference.argmax_agreement_ratio > 0.9
    types = {item.name: item.type for item in read_header(tmp_path / "gguf" / MODEL).tensors}
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in (0, 1)} == {"Q8_0"}
    assert [types[f"blk.{layer}.ffn_down.weight"] for layer in (0, 1)] == ["Q4_0", "TQ2_0"]
    assert types["blk.0.attn_q.weight"] == "Q4_0"


def test_a_description_that_makes_no_sense_is_named(tmp_path):
    model, tokenizer = make_llama(tmp_path)
    save_checkpoint(
        convert(model, number_format=MIXED), tokenizer=tokenizer, folder=tmp_path / "model"
    )
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    known = config["quantization_config"]["layers"]["*.v_proj"]
    wrong = [{"*": {"quant_method": "awq"}}, {"*": "int8"}, {"re:(": known}, ["*.v_proj"], None]
    for layers in wrong:
        config["quantization_config"]["layers"] = layers
        path.write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"quantization_config\.layers has to give each"):
            load_model(tmp_path / "model")


def test_rows_that_are_no_whole_blocks_are_refused_for_a_gguf_file(tmp_path):
    make_checkpoint(tmp_path, "llama", **SIZES)
    architecture = read_architecture(tmp_path, runtime=GgufRuntime())
    for layers, message in (
        ({"*.up_proj": {"kind": "ternary"}}, r"rows of model\.layers\.0\.mlp\.up_proj are 64 long"),
        ({"*.up_proj": {"kind": "int2"}}, "has layers of int2, which a GGUF file cannot hold"),
    ):
        mixed = Int4.model_validate({"kind": "int4", "layers": layers})
        with pytest.raises(CheckpointError, match=message):
            check_format(mixed, architecture=architecture, place="model")


def test_a_pattern_that_means_no_layer_is_refused_with_the_names_of_some(tmp_path):
    model, _ = make_llama(tmp_path)
    wrong = Int4.model_validate({"kind": "int4", "layers": {"*.donw_proj": {"kind": "int8"}}})
    with pytest.raises(CheckpointError, match=r"donw_proj.*means no linear.*0\.self_attn\.q_proj"):
        prepare_for_qat(model, number_format=wrong)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"*": {"kind": "int8", "embeddings": "int8"}}, "belongs to the whole model's scheme"),
        ({"re:(": {"kind": "int8"}}, "is no regular expression"),
        ({"*": {"kind": "int9"}}, "unknown scheme 'int9'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        Int4.model_validate({"kind": "int4", "layers": layers})


def test_bytes_go_to_layers_that_rounding_costs_most(tmp_path):
    model, tokenizer = make_llama(tmp_path)
    base = Int4(kind="int4", layers={"*.0.*q_proj": MIXED.layers["*.v_proj"]})
    least = count_bytes(model, number_format=base)
    config = MixedPrecision.model_validate(
        {"max_bytes": round(1.1 * least), "formats": [{"kind": "int8"}]}
    )
    before = {name: item.clone() for name, item in model.state_dict().items()}
    mixed = choose_layers(model, number_format=base, config=config, input_ids=TOKENS)
    assert all((model.state_dict()[name] == item).all() for name, item in before.items())
    assert 1 < len(mixed.layers) < 14 and next(iter(mixed.layers)) == "*.0.*q_proj"
    assert least < count_bytes(model, number_format=mixed) <= config.max_bytes
    batch = Batch(TOKENS, labels=TOKENS, record_ids=TOKENS[:, 0], tokens=TOKENS > -1)
    chosen = round_by_gptq(
        model,
        batches=[batch] * 8,
        number_format=mixed,
        damping_ratio=0.01,
    )
    assert chosen.num_nearest == len(mixed.layers)
    save_checkpoint(
        convert(model, number_format=mixed), tokenizer=tokenizer, folder=tmp_path / "model"
    )
    stored = (tmp_path / "model" / WEIGHTS).stat().st_size
    assert 0 < stored - count_bytes(make_llama(tmp_path)[0], number_format=mixed) < 12_000


def test_a_limit_below_the_scheme_itself_is_refused(tmp_path):
    model, _ = make_llama(tmp_path)
    config = MixedPrecision.model_validate({"max_bytes": 1000, "formats": [{"kind": "int8"}]})
    with pytest.raises(CheckpointError, match=r"max_bytes is 1,000, and the weights take \d+,"):
        choose_layers(model, number_format=Int4(kind="int4"), config=config, input_ids=TOKENS)


def make_config(scheme, more):
    return quantize.Config.model_validate(
        {
            "stage": "quantize",
            "checkpoint": "student",
            "corpus": "corpus",
            "scheme": {"kind": scheme},
            "mixed_precision": {"max_bytes": 10**9, "formats": [{"kind": more}]},
            "objective": {"kind": "next_token"},
            "training": {"max_steps": 2, "learning_rate": 1e-3},
        }
    )


def test_the_recipe_knows_all_formats_that_layers_may_get():
    config = make_config("ternary", "int4")
    assert [item.kind for item in config.possible_scheme.list_used()] == ["ternary", "int4"]
    assert config.resolve_gptq() is not None  # of the layers that get int4


def test_a_format_of_fewer_bits_than_the_scheme_is_refused():
    with pytest.raises(ValueError, match="int4 takes no more bits than the scheme's int8"):
        make_config("int8", "int4")
