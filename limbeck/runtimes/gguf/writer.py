"""Writing a checkpoint as a GGUF bundle: `model.gguf`, the tokenizer's files, `bundle.json`."""

from pathlib import Path

from tokenizers import Tokenizer

from limbeck.models.checkpoints import read_number_format
from limbeck.models.gguf.header import read_header
from limbeck.models.tokenizers import load_tokenizer
from limbeck.runtimes.architecture import count_idle, format_name, read_architecture
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.gguf.carry import carry
from limbeck.runtimes.gguf.limits import CARRIED, check_format, check_model
from limbeck.runtimes.gguf.metadata import ModelMetadata
from limbeck.runtimes.gguf.runtime import MODEL, STORED_FORMATS, GgufRuntime, hash_header
from limbeck.runtimes.gguf.tensors import TensorPlan
from limbeck.runtimes.gguf.vocabulary import describe_vocabulary
from limbeck.runtimes.tensors import Tensors
from limbeck.runtimes.tokenizer_files import write_tokenizer


def write(checkpoint: Path, folder: Path, *, weights: str) -> Bundle:
    """Write the bundle of a checkpoint into a folder; what `bundle.json` says.

    Raises:
        CheckpointError: the checkpoint is damaged, or llama.cpp computes no such model, or cuts
            text otherwise than its tokenizer.
    """
    architecture = read_architecture(checkpoint, runtime=GgufRuntime())
    number_format = read_number_format(checkpoint)
    check_format(number_format, architecture=architecture, place=checkpoint)
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
    tensors = Tensors(checkpoint, number_format=number_format, is_tied=architecture.is_tied)
    plan = TensorPlan(
        architecture,
        tensors=tensors,
        weights=weights,
        floats=weights if number_format is None else "F32",
    )
    header = ModelMetadata(architecture, plan=plan, name=checkpoint.name)
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
        active_parameters=tensors.num_parameters - count_idle(architecture),
        max_tokens=architecture.max_tokens,
    )
    write_bundle(folder, bundle)
    return bundle


def _without_limits(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
