"""Dequantize: a GGUF file as a checkpoint in float32, with its tokenizer and chat template."""

import dataclasses
import importlib.util
import logging

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.gguf.compare import compare_predictions, compare_tokens
from limbeck.models.gguf.dequantize import load_gguf
from limbeck.models.gguf.header import Header, read_header
from limbeck.models.gguf.llama_cpp import open_llama_cpp
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages.config.dequantize import Config

logger = logging.getLogger(__name__)


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the checkpoint; what the file held, and how near it lies to llama.cpp.

    Raises:
        CheckpointError: the file is damaged, or cannot be read whole.
        ParityError: llama.cpp predicts otherwise from the same file.
    """
    check_packages(config)
    header = read_header(config.file)
    logger.info("%s: %s, %s", header.path.name, header.architecture, ", ".join(header.types))
    tokenizer, model = load_gguf(header)
    if config.tokenizer:
        template = tokenizer.chat_template
        tokenizer = load_tokenizer(work.one("tokenizer").path)
        tokenizer.chat_template = tokenizer.chat_template or template
    metrics = _compare(config, header=header, tokenizer=tokenizer, model=model)
    save_checkpoint(model, tokenizer=tokenizer, folder=work.folder)
    load_tokenizer(work.folder)
    return {
        "architecture": header.architecture,
        "types": list(header.types),
        "parameters": sum(item.numel() for item in model.parameters()),
        "pre_tokenizer": header.pre_tokenizer,
        **metrics,
    }


def check_packages(config: Config) -> None:
    """Refuse to start without the packages that read and compare.

    Raises:
        CheckpointError: one is not installed.
    """
    needed = ["gguf"] + (["xllamacpp"] if config.reference == "llama_cpp" else [])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"{config.file}: reading GGUF needs {' and '.join(missing)}; install them with "
            "`pip install 'limbeck[gguf]'`"
            + (" (or set `reference: none`)" if missing == ["xllamacpp"] else "")
        )


def _compare(
    config: Config,
    *,
    header: Header,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> dict[str, object]:
    if config.reference == "none":
        return {}
    with open_llama_cpp(header.path) as reference:
        compare_tokens(tokenizer, reference=reference, header=header)
        found = compare_predictions(model, tokenizer=tokenizer, reference=reference, header=header)
    logger.info("llama.cpp agrees: %s", found)
    return {f"llama_cpp_{key}": value for key, value in dataclasses.asdict(found).items()}
