"""Reading and writing checkpoints: transformers folders, ours and published ones.

Left out: artifacts' manifests, which the pipeline writes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import psutil
import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as logging_of_transformers

import limbeck.models.moe.modeling  # noqa: F401  (registers the architecture with the Auto classes)
from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError, UnknownNameError
from limbeck.env.ranks import process_index
from limbeck.models.chat_tokens import end_token_ids
from limbeck.models.config import ModelConfig
from limbeck.models.config_file import LOCAL, read_config
from limbeck.models.known import codes_cannot_be_trained
from limbeck.models.tokenizers import load_reader, load_tokenizer
from limbeck.models.torch_session import check_decodable
from limbeck.models.vision.configuration import LimbeckVisionConfig
from limbeck.models.vision.modeling import write_preprocessor
from limbeck.models.vocabulary import as_token_ids
from limbeck.models.weight_files import check_weight_files, count_weight_bytes
from limbeck.models.weight_fit import check_codes, check_fit
from limbeck.quantization.formats.base import QuantizedFormat, find_quantized
from limbeck.quantization.storage import load_quantized, save_quantized


def open_config(folder: Path) -> PreTrainedConfig:
    """A checkpoint's config as transformers reads it.

    Raises:
        CheckpointError: it is missing or damaged, of an architecture that transformers does not
            know, or of another tool's codes.
    """
    described = read_config(folder)
    check_codes(described, place=folder)
    model_type = described["model_type"]
    if model_type not in CONFIG_MAPPING and described.get("auto_map"):
        raise CheckpointError(
            f"{folder / 'config.json'}: a {model_type!r} needs code of its own (auto_map), which "
            "is not run; name a model of an architecture that transformers itself has"
        )
    if model_type not in CONFIG_MAPPING:
        error = UnknownNameError(str(model_type), known=CONFIG_MAPPING, what="model_type")
        near = str(error).partition("known:")[0].strip()
        raise CheckpointError(
            f"{folder / 'config.json'}: {near or error} transformers {transformers.__version__} "
            "has no such architecture; correct the name, or update transformers"
        )
    try:
        return AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"{folder / 'config.json'}: cannot be read: {str(error)[:400]}"
        ) from error


def build_without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """The causal language model of a config on torch's meta device, which holds no numbers.

    Raises:
        CheckpointError: transformers cannot build it as a causal language model.
    """
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.tie_weights()
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"a config of type {config.model_type!r} does not describe a causal language model: "
            f"{str(error)[:400]}"
        ) from None
    return model


def check_weights(folder: Path) -> None:
    """Refuses weights that are missing, cut short, or do not fit the config, from heads alone.

    Raises:
        CheckpointError: `load_model` would fail.
    """
    check_weight_files(folder)
    num_bytes = count_weight_bytes(folder)
    # Files larger than the memory cannot always be mapped; whether they fit shows when they run.
    if read_number_format(folder) is None and 0 < num_bytes < psutil.virtual_memory().total:
        with _quiet():
            load_model(folder, device_map="meta", ignore_mismatched_sizes=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and its own report on weights that do not fit, which is ours."""
    verbosity, shown = (
        logging_of_transformers.get_verbosity(),
        logging_of_transformers.is_progress_bar_enabled(),
    )
    logging_of_transformers.set_verbosity(logging.CRITICAL)
    logging_of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        logging_of_transformers.set_verbosity(verbosity)
        if shown:
            logging_of_transformers.enable_progress_bar()


def read_number_format(folder: Path) -> QuantizedFormat | None:
    """The format of a checkpoint's codes; None where it is read as floats.

    Raises:
        CheckpointError: `config.json` is missing, damaged, describes no possible format, or another
            tool's codes.
    """
    config = read_config(folder)
    try:
        found = find_quantized(config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    check_codes(config, place=folder)
    return found


def load_model(
    folder: Path, *, dtype: torch.dtype | Literal["auto"] = torch.float32, **placing: Any
) -> PreTrainedModel:
    """The causal language model in a folder, on the CPU, ready to answer.

    `auto` is the type that the weights are stored in; `placing` are transformers' arguments about
    devices.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit the config, or no session can
            decode with such a model.
    """
    number_format = read_number_format(folder)
    if number_format is not None:
        return load_quantized(folder, number_format=number_format)
    try:
        model, info = cast(
            tuple[PreTrainedModel, dict[str, Any]],
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **LOCAL, **placing
            ),
        )
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"{folder}: cannot be loaded as a causal language model: {str(error)[:600]}; check "
            "that every file was copied whole"
        ) from error
    check_fit(model, info=info, folder=folder)
    check_decodable(model, place=folder)
    return model.eval()


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

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or holds codes, which are not trained.
    """
    if isinstance(described, str):
        folder = work.one(field).path
        if (number_format := read_number_format(folder)) is not None:
            raise codes_cannot_be_trained(folder, number_format.kind)
        corpus = Corpus(work.one("corpus").path)
        return load_reader(folder, corpus=corpus), load_model(folder)
    tokenizer = load_tokenizer(Corpus(work.one("corpus").path).tokenizer_path)
    return tokenizer, described.build(tokenizer=tokenizer, seed=seed)
