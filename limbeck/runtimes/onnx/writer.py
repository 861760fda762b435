"""Writing a checkpoint as an ONNX bundle: the graph, the tokenizer's files, `bundle.json`."""

import json
from pathlib import Path

import onnx

from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.checkpoints import load_tokenizer
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.chat import FileChat
from limbeck.runtimes.checkpoint_reader import Tensors, read_architecture
from limbeck.runtimes.onnx.decoder import build_decoder
from limbeck.runtimes.onnx.graph import OPSET
from limbeck.runtimes.onnx.session import MODEL

GENERATION = "generation_config.json"
SINGLE_FILE_BYTES = 1 << 30
"""Larger weights go into a file of their own: one protobuf holds at most 2 GiB."""
PROBES = (
    "",
    "What are the symptoms of asthma, 3 of them?",
    "高血压 (BP > 140/90 mmHg)?\n 怎么办",
    "  à",
)
"""Questions that the bundle's own tokenizer must render as transformers does."""


def write(checkpoint: Path, *, folder: Path) -> Bundle:
    """Write the bundle of a checkpoint into a folder; what `bundle.json` says.

    Raises:
        CheckpointError: the checkpoint is damaged, or its architecture is not supported.
    """
    architecture = read_architecture(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = Tensors(checkpoint)
    model = build_decoder(architecture, tensors=tensors)
    tensors.finish()
    is_large = model.ByteSize() > SINGLE_FILE_BYTES
    onnx.save_model(model, folder / MODEL, save_as_external_data=is_large, location=f"{MODEL}.data")
    _write_tokenizer(checkpoint, folder)
    bundle = Bundle(
        runtime="onnx",
        format="int8" if tensors.holds_integers else "float32",
        architecture=architecture.model_type,
        opset=OPSET,
        parameters=tensors.num_parameters,
        active_parameters=tensors.num_parameters,
        max_tokens=architecture.max_tokens,
    )
    write_bundle(folder, bundle)
    return bundle


def _write_tokenizer(checkpoint: Path, folder: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.save_pretrained(folder)
    path = checkpoint / GENERATION
    try:
        generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy it again") from None
    if generation.get("eos_token_id") is None:
        generation["eos_token_id"] = tokenizer.eos_token_id
    text = json.dumps(generation, indent=2, sort_keys=True) + "\n"
    (folder / GENERATION).write_text(text, encoding="utf-8")
    chat = FileChat(folder)
    for question in PROBES:
        messages = [{"role": "user", "content": question}]
        expected = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        if chat.render(question) != expected:
            raise ParityError(
                f"{checkpoint}: the tokenizer's files alone render {question!r} as "
                f"{chat.render(question)}, transformers as {expected}; this tokenizer needs code "
                "that a bundle does not carry"
            )
