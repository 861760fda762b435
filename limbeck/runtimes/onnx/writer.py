"""Writing a checkpoint as an ONNX bundle: the graph, the tokenizer's files, `bundle.json`."""

from pathlib import Path

import onnx

from limbeck.models.checkpoints import read_number_format
from limbeck.runtimes.architecture import count_idle, format_name, read_architecture
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.onnx.decoder import build_decoder
from limbeck.runtimes.onnx.graph import OPSET
from limbeck.runtimes.onnx.runtime import MODEL, OnnxRuntime
from limbeck.runtimes.tensors import Tensors
from limbeck.runtimes.tokenizer_files import write_tokenizer

SINGLE_FILE_BYTES = 1 << 30
"""Larger weights go into a file of their own: one protobuf holds at most 2 GiB."""


def write(checkpoint: Path, folder: Path) -> Bundle:
    """Write the bundle of a checkpoint into a folder; what `bundle.json` says.

    Raises:
        CheckpointError: the checkpoint is damaged, or its architecture is not supported.
    """
    architecture = read_architecture(checkpoint, runtime=OnnxRuntime())
    folder.mkdir(parents=True, exist_ok=True)
    tensors = Tensors(
        checkpoint, number_format=read_number_format(checkpoint), is_tied=architecture.is_tied
    )
    model = build_decoder(architecture, tensors=tensors)
    tensors.finish()
    is_large = model.ByteSize() > SINGLE_FILE_BYTES
    onnx.save_model(model, folder / MODEL, save_as_external_data=is_large, location=f"{MODEL}.data")
    write_tokenizer(checkpoint, folder)
    bundle = Bundle(
        runtime=OnnxRuntime.name,
        format=format_name(checkpoint),
        architecture=architecture.model_type,
        runtime_settings={"opset": OPSET},
        parameters=tensors.num_parameters,
        active_parameters=tensors.num_parameters - count_idle(architecture),
        max_tokens=architecture.max_tokens,
    )
    write_bundle(folder, bundle)
    return bundle
