"""Writing and reading checkpoints of quantized models: transformers' files, checked strictly."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.qat import quantize_in_place

WEIGHTS = "model.safetensors"


def save_quantized(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's config, generation config and tensors; tied tensors are stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in _stored(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model under its first name."""
    first: dict[int, str] = {}
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(tensor), name) == name:
            tensors[name] = tensor.detach()
    return tensors


def load_quantized(folder: Path, *, number_format: QuantizedFormat) -> PreTrainedModel:
    """The quantized model in a folder, ready to answer, on the CPU.

    Raises:
        CheckpointError: the weights are missing, damaged, or do not fit the config.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.tie_weights()
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"{folder}: config.json does not describe a causal language model: "
            f"{str(error)[:400]}; make the checkpoint again"
        ) from error
    quantize_in_place(model, number_format=number_format, described=config.quantization_config)
    _fill(model, folder / WEIGHTS)
    return model.eval()


def _fill(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; copy the whole checkpoint folder")
    expected = _stored(model)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            _check_names(path, names=names, expected=expected)
            for name, target in expected.items():
                target.copy_(_check_tensor(path, name, file.get_tensor(name), target))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged safetensors file ({error}); copy it again or make it again"
        ) from error


def _check_names(path: Path, *, names: set[str], expected: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(expected.keys() - names), sorted(names - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path}: tensors do not fit config.json: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} unexpected {extra[:5]}; the config belongs to another model"
        )


def _check_tensor(path: Path, name: str, found: Tensor, target: Tensor) -> Tensor:
    both_floats = found.is_floating_point() and target.is_floating_point()
    if found.shape != target.shape or (found.dtype != target.dtype and not both_floats):
        raise CheckpointError(
            f"{path}: tensor {name!r} is {found.dtype} {list(found.shape)}, expected "
            f"{target.dtype} {list(target.shape)}; the config belongs to another model"
        )
    return found
