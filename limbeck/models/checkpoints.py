"""Reading and writing checkpoints: transformers folders, ours and published ones.

Left out: artifacts' manifests, which the pipeline writes.
"""

import json
import logging
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import limbeck.models.moe.modeling  # noqa: F401  (registers the architecture with the Auto classes)
from limbeck.contracts.answerer import alternate
from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError
from limbeck.env.ranks import process_index
from limbeck.models.chat_tokens import chat_template_of, end_token_ids
from limbeck.models.config import ModelConfig
from limbeck.models.vision.configuration import LimbeckVisionConfig
from limbeck.models.vision.modeling import write_preprocessor
from limbeck.models.vocabulary import as_token_ids
from limbeck.quantization.formats.base import QuantizedFormat, find_quantized
from limbeck.quantization.storage import load_quantized, save_quantized

logger = logging.getLogger(__name__)


def read_config(folder: Path) -> dict:
    """The content of a checkpoint's `config.json`.

    Raises:
        CheckpointError: the folder or the file is missing or damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: no config.json, so it is not a model folder; name a folder that "
            "transformers' save_pretrained wrote"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); make the checkpoint again") from None
    if not isinstance(value, dict) or "model_type" not in value:
        raise CheckpointError(f"{path}: has no 'model_type'; expected a transformers config")
    return value


def read_number_format(folder: Path) -> QuantizedFormat | None:
    """The format of a checkpoint's codes; None where it holds floats, or another tool's codes.

    Raises:
        CheckpointError: `config.json` is missing, damaged, or describes no possible format.
    """
    config = read_config(folder)
    try:
        return find_quantized(config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def load_model(
    folder: Path, *, dtype: torch.dtype | Literal["auto"] = torch.float32, **placing: Any
) -> PreTrainedModel:
    """The causal language model in a folder, on the CPU, ready to answer.

    `auto` is the type that the weights are stored in; `placing` are transformers' arguments about
    devices.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit the config.
    """
    number_format = read_number_format(folder)
    if number_format is not None:
        return load_quantized(folder, number_format=number_format)
    try:
        model, info = cast(
            tuple[PreTrainedModel, dict[str, Any]],
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, local_files_only=True, **placing
            ),
        )
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"{folder}: cannot be loaded as a causal language model: {str(error)[:600]}; check "
            "that every file was copied whole"
        ) from error
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(item) for item in info["mismatched_keys"])
    if missing or wrong:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing {missing[:5]}, of another shape "
            f"{wrong[:5]}; the config belongs to another model"
        )
    return model.eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a checkpoint, bundle or tokenizer folder.

    Raises:
        CheckpointError: there is none, it is damaged, it has no end token, or it has tokens that
            the model beside it does not know.
    """
    if not (folder / "tokenizer_config.json").is_file():
        raise CheckpointError(f"{folder}: no tokenizer_config.json; copy the tokenizer files too")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder}: tokenizer cannot be read: {str(error)[:400]}") from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{folder}: the tokenizer has no eos_token; answers could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _try_out(tokenizer, folder)
    return tokenizer


def _try_out(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Render a question, so that a damaged template shows here and not in the middle of a run."""
    try:
        text = chat_template_of(tokenizer).render(alternate(["?"]))
        if "?" not in text:
            raise ValueError(f"the question is missing from what the template renders: {text!r}")
        tokenizer(text)
    except Exception as error:  # a template and a tokenizer's settings can hold anything
        raise CheckpointError(
            f"{folder}: the tokenizer or its chat template cannot render a question: "
            f"{str(error)[:400]}; copy the tokenizer files again"
        ) from error
    if not (folder / "config.json").is_file():
        return
    config = read_config(folder)
    rows = config.get("text_config", config).get("vocab_size")
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(rows, int) and highest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest token is {highest}, the model knows {rows} tokens; "
            "they do not belong together"
        )


def save_checkpoint(
    model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write a model, its tokenizer, and how it reads images, as a transformers folder.

    Of several launched processes, the first one writes; the others' models may be in parts.
    """
    if process_index() > 0:
        return
    generation = model.generation_config
    if generation is not None:
        # A template may end a turn with another token than the one that ends a text.
        ends = end_token_ids(tokenizer, listed=as_token_ids(generation.eos_token_id))
        generation.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    if find_quantized(model.config.to_dict()) is not None:
        save_quantized(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if isinstance(model.config, LimbeckVisionConfig):
        write_preprocessor(model.config, folder)


def open_start(
    described: str | ModelConfig, *, work: Work, field: str, seed: int
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """What training starts from: the checkpoint that a stage's field names, or a fresh model.

    A fresh model uses the tokenizer of the stage's corpus.
    """
    if isinstance(described, str):
        folder = work.one(field).path
        return load_tokenizer(folder), load_model(folder)
    tokenizer = load_tokenizer(Corpus(work.one("corpus").path).tokenizer_path)
    return tokenizer, described.build(tokenizer=tokenizer, seed=seed)
