"""Estimated bytes are those of the files that are written, in every format of every runtime."""

import gguf
import pytest
from gguf import GGMLQuantizationType as Kind

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import open_config
from limbeck.models.decoder_sizes import DecoderSizes, read_sizes
from limbeck.models.gguf.header import read_header
from limbeck.models.gguf.types import BLOCKS, WEIGHTS
from limbeck.models.vocabulary import Vocabulary
from limbeck.quantization.formats.base import list_formats
from limbeck.runtimes.gguf.limits import CARRIED
from limbeck.runtimes.gguf.runtime import MODEL as GGUF_MODEL
from limbeck.runtimes.gguf.runtime import GgufRuntime
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.sizing.attention import attention_flops, count_cached
from limbeck.sizing.estimates import Device, TextLengths, estimate
from limbeck.sizing.file_formats import FILE_FORMATS
from limbeck.sizing.parameters import size_model
from limbeck.sizing.shape_counts import count_parameters, count_products, count_shapes
from limbeck.sizing.vocabulary_bytes import assume_vocabulary, read_tokenizer
from tests.support.families import make_family
from tests.support.tiny_checkpoints import make_checkpoint

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 208}
"""A feed-forward width that is no multiple of a block, as pruning leaves it."""
WIDE = {"hidden_size": 256, "num_attention_heads": 16, "intermediate_size": 400}
"""Whole blocks of ternary weights, but for the feed-forward width."""
DEVICE = Device(bytes_per_second=1e9, flops_per_second=1e9)


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def folders(request, tmp_path_factory):
    """The same model as a checkpoint in every format."""
    folder = tmp_path_factory.mktemp(request.param)
    # A Llama with untied embeddings, and a Qwen3 with tied ones.
    plain = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
    plain["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    changes = SIZES | (plain if request.param == "llama" else {})
    for name in ("float32", "int8", "int4"):
        make_checkpoint(folder / name, request.param, name, **changes)
    for name in ("int2", "ternary"):
        make_checkpoint(folder / name, request.param, name, "int4", **changes | WIDE)
    return folder


def measure(checkpoint, name):
    found = estimate(
        sizes := read_sizes(checkpoint),
        FILE_FORMATS[name],
        shapes=count_shapes(sizes),
        vocabulary=read_tokenizer(checkpoint).bytes,
        device=DEVICE,
        use=TextLengths(context_tokens=64, prompt_tokens=8),
    )
    return found.disk_bytes


def count_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("name", ["int8", "int4", "int2", "ternary"])
def test_a_checkpoint_and_its_bundles_have_the_estimated_bytes(folders, name, tmp_path):
    checkpoint = folders / name
    OnnxRuntime().write(checkpoint, tmp_path / "onnx")
    found = {
        f"transformers {name}": count_bytes(checkpoint),
        f"onnx {name}": count_bytes(tmp_path / "onnx"),
    }
    for kind in CARRIED.get(name, ()):
        GgufRuntime().write(checkpoint, tmp_path / kind, weights=kind)
        found[f"gguf {kind}"] = (tmp_path / kind / GGUF_MODEL).stat().st_size
    assert {form: measure(checkpoint, form) for form in found} == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("kind", ["F16", "Q4_1"])
def test_a_float_checkpoint_has_the_estimated_bytes_too(folders, kind, tmp_path):
    checkpoint = folders / "float32"
    GgufRuntime().write(checkpoint, tmp_path, weights=kind)
    found = (tmp_path / GGUF_MODEL).stat().st_size
    assert measure(checkpoint, f"gguf {kind}") == pytest.approx(found, rel=0.02)


def test_a_float_bundle_of_onnx_has_the_estimated_bytes(folders, tmp_path):
    OnnxRuntime().write(folders / "float32", tmp_path)
    found = count_bytes(tmp_path)
    assert measure(folders / "float32", "onnx float32") == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize(
    ("family", "weights"), [("Qwen3", "Q4_K_M"), ("Qwen2", "Q6_K"), ("Phi-3", "Q4_K_M")]
)
def test_the_types_of_a_mix_have_the_estimated_bytes(family, weights, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 400, "num_hidden_layers": 5}
    config = open_config(make_family(tmp_path / "model", name=family, **sizes))
    GgufRuntime().write(tmp_path / "model", tmp_path, weights=weights)
    form, shapes = FILE_FORMATS[f"gguf {weights}"], count_shapes(config)
    header = read_header(tmp_path / GGUF_MODEL)
    assert len(header.types) == (2 if weights == "Q6_K" else 4)
    assert form.measure(shapes).total == sum(item.num_bytes for item in header.tensors)
    vocabulary = read_tokenizer(tmp_path / "model", num_rows=config.vocab_size).bytes
    rest = form.measure_rest(shapes, num_layers=5, vocab=vocabulary)
    found = (tmp_path / GGUF_MODEL).stat().st_size
    assert form.measure(shapes).total + rest == pytest.approx(found, rel=0.02)


def test_blocks_are_llama_cpps_and_every_type_that_is_written_is_sized():
    assert {name: gguf.GGML_QUANT_SIZES[Kind[name]] for name in BLOCKS} == BLOCKS
    assert set(WEIGHTS) == set(GgufRuntime.weights) - {"format"}
    assert {f"gguf {name}" for name in WEIGHTS} == {name for name in FILE_FORMATS if "gguf" in name}


def test_a_row_that_is_no_whole_blocks_is_refused():
    sizes = DecoderSizes("llama", 100, 96, 2, 3, 3, 32, 64, True, intermediate_size=256)
    shapes = count_shapes(sizes)
    assert FILE_FORMATS["gguf TQ1_0"].find_fault(shapes) == (
        "rows of 96 weights are no whole blocks of 256"
    )
    for name in ("gguf Q4_0", "gguf Q4_K_M"):
        assert FILE_FORMATS[name].find_fault(shapes) == ""
    assert FILE_FORMATS["onnx int4"].find_fault(shapes) == ""


def test_shapes_are_counted_as_the_model_is_sized(folders):
    config, sizes = open_config(folders / "float32"), read_sizes(folders / "float32")
    shapes = count_shapes(sizes)
    assert shapes == count_shapes(config)
    size = size_model(config, context_tokens=10)
    assert count_parameters(shapes) == size.parameters
    flops = 2 * count_products(shapes) + attention_flops(sizes, attended=10.0)
    assert flops == size.forward_flops
    stated = {item.name: item.total_bytes for item in size.formats}
    for name in ("bfloat16", "int8", "int4"):
        if name in list_formats() and not any(shape.columns % 32 for shape in shapes):
            found = FILE_FORMATS[f"transformers {name}"].measure(shapes)
            assert found.total == stated[name]


def test_memory_holds_the_cache_and_speed_reads_it(folders):
    sizes = read_sizes(folders / "float32")
    form, vocabulary = FILE_FORMATS["gguf Q8_0"], assume_vocabulary(1000)
    short, long = (
        estimate(
            sizes,
            form,
            shapes=count_shapes(sizes),
            vocabulary=vocabulary,
            device=DEVICE,
            use=TextLengths(context_tokens=tokens, prompt_tokens=8),
        )
        for tokens in (1024, 2048)
    )
    cache = 1024 * count_cached(sizes) * 2
    assert long.cache_bytes - short.cache_bytes == cache == long.read_bytes - short.read_bytes
    assert long.memory_bytes - short.memory_bytes == cache
    assert long.tokens_per_second < short.tokens_per_second
    assert long.first_token_seconds >= short.first_token_seconds > 0


def test_a_mixture_has_no_bundle(moe_config):
    with pytest.raises(CheckpointError, match="is no dense decoder"):
        count_shapes(moe_config.sizes(Vocabulary(60)))


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json; name a folder"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(CheckpointError, match="damaged"):
        read_tokenizer(tmp_path)
