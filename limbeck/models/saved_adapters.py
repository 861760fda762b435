"""Adapters that somebody else trained, as peft saves them: do they belong to a model, and what do
the two make together.
"""

import copy
import importlib.util
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.models.adapters import PREFIX, WEIGHTS, untie

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG = "adapter_config.json"
LORA_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<part>[AB])(\.\w+)?\.weight")

ADAPTER_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(embedding_)?[AB](\.\w+)*")


def read_base(folder: Path) -> str:
    """The name of the model that an adapter in a folder was trained beside; '' where none is named.

    Raises:
        CheckpointError: the folder holds no LoRA adapter, or not its weights.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {CONFIG}; name the folder that peft saved")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, base = values["peft_type"], values.get("base_model_name_or_path") or ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); copy it again") from None
    if values.get("alora_invocation_tokens"):
        raise CheckpointError(
            f"{path}: counts from a phrase on only (aLoRA), which weights cannot; train one without"
        )
    if kind != "LORA":
        raise CheckpointError(f"{path}: an adapter of type {kind!r}; only LORA can be merged")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: no {WEIGHTS}; save the adapter with safe_serialization, or copy it whole"
        )
    return str(base)


def find_misfit(folder: Path, *, model: "PreTrainedModel") -> None:
    """Compare an adapter with the layers of a model, by names and shapes.

    Raises:
        CheckpointError: a layer is not there, has another shape or no bias that the adapter's could
            be added to, or the weights are damaged.
    """
    modules = dict(model.named_modules())
    shapes = _read_shapes(folder)
    num_rows = _find_num_rows(shapes, model=model, folder=folder)
    head = model.get_output_embeddings()
    for name, shape in shapes.items():
        found = LORA_NAME.fullmatch(name)
        if found is None:
            continue
        # Two weights of one module, as of stacked experts, have one adapter around the other.
        module = modules.get(found["module"].replace(".base_layer", ""))
        weight = getattr(module, "weight", None)
        if module is not None and weight is None:
            continue  # peft itself compares what is no linear layer
        # A reads the layer's inputs, B writes its outputs.
        axis, of_adapter = (1, shape[1]) if found["part"] == "A" else (0, shape[0])
        if module is None or weight is None or weight.dim() != 2:
            problem = f"the model has no linear layer {found['module']!r}"
        elif f"{name.removesuffix('.weight')}.bias" in shapes and module.bias is None:
            raise CheckpointError(
                f"{folder}: lora_bias gives {found['module']!r} a bias, which it has no place for; "
                "train an adapter without lora_bias"
            )
        elif axis == 0 and module is head and of_adapter == num_rows:
            continue  # of a vocabulary that was made longer
        elif weight.shape[axis] != of_adapter:
            problem = f"{name!r} is {list(shape)}, and the layer's weight {list(weight.shape)}"
        else:
            continue
        raise CheckpointError(
            f"{folder}: belongs to another model: {problem}; name the one that it was trained "
            f"beside ({read_base(folder) or 'its config does not say which'})"
        )


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: damaged ({error}); copy it again") from error


def _find_num_rows(
    shapes: Mapping[str, Sequence[int]], *, model: "PreTrainedModel", folder: Path
) -> int:
    """Of the vocabulary that an adapter was trained with, where it is another than the model's.

    peft saves the embeddings and the head with an adapter then, but not the one of the two that has
    no adapter where the other has.

    Raises:
        CheckpointError: the rows of one of the two are lost.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and head.weight is embeddings.weight
    names = {module: name for name, module in model.named_modules() if module in (embeddings, head)}
    stored = {
        module: shapes[key][0]
        for module, name in names.items()
        for key in (f"{PREFIX}{name}.weight", f"{PREFIX}{name}.base_layer.weight")
        if key in shapes
    }
    num_rows = next(iter(stored.values()), 0)
    if num_rows in (0, model.config.get_text_config().vocab_size):
        return 0
    if len(stored) == 1 and not is_tied:
        (lost,) = {names[module] for module in names if module not in stored}
        raise CheckpointError(
            f"{folder}: made for {num_rows:,} tokens, but {lost!r} of so many is not in it, which "
            "peft leaves out; save the adapter again with it among modules_to_save"
        )
    return num_rows


def has_tokenizer(folder: Path) -> bool:
    """Whether an adapter brings a tokenizer of its own, which the merged model then has."""
    return (folder / "tokenizer_config.json").is_file()


def describe_merged(model: "PreTrainedModel", *, folder: Path) -> "PreTrainedConfig":
    """The config of a model after merging, which may have more tokens; the model needs no weights.

    Raises:
        CheckpointError: as `find_misfit`.
    """
    config = copy.deepcopy(model.config)
    shapes = _read_shapes(folder)
    text = config.get_text_config()
    if num_rows := _find_num_rows(shapes, model=model, folder=folder):
        text.vocab_size = num_rows
    pair = {model.get_input_embeddings(), model.get_output_embeddings()}
    names = {name for name, module in model.named_modules() if module in pair}
    saved = _read_values(folder).get("modules_to_save")
    ends = tuple(f".{end}" for end in saved) if isinstance(saved, list) else ()
    adapted = {_adapted_module(name) for name in shapes}
    adapted |= {name for name in names if ends and f".{name}".endswith(ends)}
    if adapted & names:  # as `untie` of the weights, and as peft does of copies
        config.tie_word_embeddings = text.tie_word_embeddings = False
    return config


def _read_values(folder: Path) -> JsonObject:
    """What `adapter_config.json` says; `read_base` refuses a damaged one."""
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def _adapted_module(name: str) -> str:
    found = ADAPTER_NAME.fullmatch(name)
    return found["module"] if found else ""


def load_adapted(model: "PreTrainedModel", *, folder: Path) -> "PeftModel":
    """The model with an adapter beside its weights; `merge` gives the merged one.

    Where the adapter brings the embeddings of a longer vocabulary along, the model gets as many.

    Raises:
        CheckpointError: peft is not installed, or cannot use the adapter.
    """
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError("adapters need peft; install it: `pip install 'limbeck[train]'`")
    import peft  # noqa: PLC0415  (slow to import)

    if num_rows := _find_num_rows(_read_shapes(folder), model=model, folder=folder):
        model.resize_token_embeddings(num_rows, mean_resizing=False)
    try:
        with warnings.catch_warnings():
            # peft asks transformers for what the latter has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            return peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except Exception as error:  # whatever a reader of another's format meets
        raise CheckpointError(f"{folder}: peft cannot use it: {str(error)[:300]}") from error


def merge_adapted(adapted: "PeftModel") -> "PreTrainedModel":
    """The model with its adapter added to its weights."""
    untie(cast("PreTrainedModel", adapted.base_model.model))
    return adapted.merge_and_unload(safe_merge=True)
