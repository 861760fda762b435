"""Writing a checkpoint as a GGUF bundle: `model.gguf`, the tokenizer's files, `bundle.json`."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer
from transformers import PreTrainedConfig

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_tokenizer, open_config, read_number_format
from limbeck.models.gguf.header import read_header
from limbeck.runtimes.architecture import Architecture, format_name, read_architecture
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.gguf.carry import carry
from limbeck.runtimes.gguf.limits import CARRIED, ROTARY_SCALED, check_format, check_model
from limbeck.runtimes.gguf.runtime import MODEL, STORED_FORMATS, GgufRuntime, hash_header
from limbeck.runtimes.gguf.tensors import ARCHITECTURES, Planned, TensorPlan
from limbeck.runtimes.gguf.vocabulary import GgufVocabulary, describe_vocabulary
from limbeck.runtimes.tensors import Tensors
from limbeck.runtimes.tokenizer_files import write_tokenizer

FILE_TYPES = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
    Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    Kind.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
    Kind.Q4_1: gguf.LlamaFileType.MOSTLY_Q4_1,
    Kind.TQ2_0: gguf.LlamaFileType.MOSTLY_TQ2_0,
    Kind.TQ1_0: gguf.LlamaFileType.MOSTLY_TQ1_0,
}


def write(checkpoint: Path, folder: Path, *, weights: str) -> Bundle:
    """Write the bundle of a checkpoint into a folder; what `bundle.json` says.

    Raises:
        CheckpointError: the checkpoint is damaged, or llama.cpp computes no such model, or cuts
            text otherwise than its tokenizer.
    """
    architecture = read_architecture(checkpoint, runtime=GgufRuntime())
    number_format = read_number_format(checkpoint)
    check_format(number_format, place=checkpoint)
    check_model(
        architecture,
        number_format=format_name(checkpoint),
        weights=weights,
        place=checkpoint,
    )
    if weights == "format":
        weights, *_ = CARRIED[format_name(checkpoint)]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(checkpoint, folder)
    tokenizer = load_tokenizer(checkpoint)
    config = open_config(checkpoint)
    tensors = Tensors(checkpoint, number_format=number_format)
    plan = TensorPlan(
        architecture,
        tensors=tensors,
        weights=Kind[weights],
        floats=Kind[weights] if number_format is None else Kind.F32,
    )
    header = ModelMetadata(architecture, config=config, plan=plan, name=checkpoint.name)
    carried = carry(
        describe_vocabulary(
            tokenizer,
            num_rows=architecture.vocab_size,
            end_ids=read_chat(folder).end_ids,
            place=str(checkpoint),
        ),
        tokenizer=_without_limits(folder / "tokenizer.json"),
        write=lambda vocabulary, path: header.write(path, vocabulary=vocabulary, tensors=()),
        place=str(checkpoint),
    )
    partial = folder / f"{MODEL}.partial"
    try:
        header.write(partial, vocabulary=carried.vocabulary, tensors=list(plan.list()))
        tensors.finish()
        partial.replace(folder / MODEL)
    finally:
        partial.unlink(missing_ok=True)
    bundle = Bundle(
        runtime=GgufRuntime.name,
        format=STORED_FORMATS[weights],
        architecture=architecture.model_type,
        runtime_settings={
            "weights": weights,
            "header_sha256": hash_header(read_header(folder / MODEL)),
            "tokenizer": carried.vocabulary.model,
            "pre_tokenizer": carried.vocabulary.pre_tokenizer,
            "normal_form": carried.vocabulary.normal_form,
            "num_equal_texts": carried.num_texts,
            "max_scale_rounding": plan.max_scale_rounding,
            "num_padded_channels": plan.padding,
            "checkpoint_format": format_name(checkpoint),
        },
        parameters=tensors.num_parameters,
        active_parameters=tensors.num_parameters,
        max_tokens=architecture.max_tokens,
    )
    write_bundle(folder, bundle)
    return bundle


def _without_limits(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class ModelMetadata:
    """What a file says of its model, beside its vocabulary."""

    def __init__(
        self, architecture: Architecture, *, config: PreTrainedConfig, plan: TensorPlan, name: str
    ) -> None:
        self._shape = architecture
        self._plan = plan
        self._name = name
        (rotary,) = architecture.rotaries
        turned = 2 * len(rotary.frequencies)
        self._theta = float((getattr(config, "rope_parameters", None) or {})["rope_theta"])
        exponents = np.arange(0, turned, 2, dtype=np.float32) / np.float32(turned)
        plain = np.float32(1.0) / np.float32(self._theta) ** exponents
        factors = (plain / rotary.frequencies).astype(np.float32)
        self._factors = None if np.allclose(factors, 1, rtol=1e-5) else factors
        self._num_turned = turned
        if self._factors is not None and architecture.model_type not in ROTARY_SCALED:
            raise CheckpointError(
                f"{name}: scales its rotary positions, which llama.cpp reads from a file of "
                f"a Llama alone, not of {architecture.model_type!r}"
            )

    def write(self, path: Path, *, vocabulary: GgufVocabulary, tensors: Sequence[Planned]) -> None:
        """Write a file, its tensors one after another."""
        shape = self._shape
        writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[shape.model_type]])
        try:
            self._describe(writer)
            vocabulary.write(writer)
            if self._factors is not None and tensors:
                factors = self._factors
                made = Planned("rope_freqs.weight", factors.shape, Kind.F32, lambda: factors)
                tensors = [made, *tensors]
            for item in tensors:
                writer.add_tensor_info(
                    item.name, item.shape, np.dtype(np.float32), item.num_bytes, item.kind
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for item in tensors:
                writer.write_tensor_data(np.ascontiguousarray(item.make()))
        finally:
            writer.close()

    def _describe(self, writer: gguf.GGUFWriter) -> None:
        shape = self._shape
        writer.add_type("model")
        writer.add_name(self._name)
        writer.add_context_length(shape.max_tokens)
        writer.add_embedding_length(shape.hidden_size)
        writer.add_block_count(len(shape.layers))
        writer.add_feed_forward_length(shape.intermediate_size + self._plan.padding)
        writer.add_head_count(shape.num_heads)
        writer.add_head_count_kv(shape.num_key_value_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_rope_dimension_count(self._num_turned)
        writer.add_rope_freq_base(self._theta)
        writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
        writer.add_vocab_size(shape.vocab_size)
        writer.add_file_type(FILE_TYPES[self._plan.weights])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
