"""Low-rank adapters: a few trained weights beside frozen ones (LoRA: Hu et al. 2021,
arXiv:2106.09685), by the library peft.
"""

import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import PositiveInt

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
"""Before the names in files of peft, whose own model wraps ours."""
FOLDER = "adapter"
"""Within a checkpoint: the adapter as peft saves it."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<part>[AB])(\.\w+)?\.weight")


class LoraConfig(Config):
    """Which weights get an adapter, and how large it is."""

    rank: PositiveInt = 16
    """Width of the adapters."""
    alpha: PositiveInt = 32
    """Adapters count alpha / rank times."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Linear layers by the ends of their names; all but the language head by default."""


def check_start(lora: LoraConfig | None, *, start: object, field: str) -> None:
    """Refuse adapters beside fresh weights, which would stay as they are.

    Raises:
        ValueError: `start`, the value of `field`, describes a fresh model.
    """
    if lora is not None and not isinstance(start, str):
        raise ValueError(
            f"lora: trains adapters beside the weights of a checkpoint, and `{field}` describes a "
            "fresh model; name a checkpoint, or leave `lora` out"
        )


def add_adapter(model: "PreTrainedModel", *, config: LoraConfig) -> None:
    """Freeze the model's weights and put adapters, which change nothing yet, beside some of them.

    Raises:
        CheckpointError: peft is not installed, or finds no such layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError("`lora` needs peft; install it with `pip install 'limbeck[train]'`")
    import peft  # noqa: PLC0415  (slow to import)

    targets = config.target_modules
    try:
        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                exclude_modules=_find_routers(model) or None,
                task_type="CAUSAL_LM",
            ),
            model,
        )
    except ValueError as error:
        raise CheckpointError(
            f"lora.target_modules {targets!r}: {str(error)[:300]}; name layers as q_proj, v_proj"
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _find_routers(model: "PreTrainedModel") -> list[str]:
    """Linear layers by class that compute something else, as some routers do."""
    from torch import nn  # noqa: PLC0415

    from limbeck.quantization.layers import is_plain_linear  # noqa: PLC0415

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not is_plain_linear(type(module))
    ]


def merge_adapter(model: "PreTrainedModel", *, config: LoraConfig, folder: Path) -> dict[str, int]:
    """Add the adapters to the weights, in place, after they are written to `folder` as peft does.

    Returns the number of trained parameters.
    """
    import peft  # noqa: PLC0415  (slow to import)
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    trained = peft.get_peft_model_state_dict(model)
    kept = folder / FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    tensors = {f"{PREFIX}{name}": item.contiguous() for name, item in trained.items()}
    save_file(tensors, kept / WEIGHTS)
    targets = config.target_modules
    peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=_find_routers(model) or None,
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(str(kept))
    adapted = {
        name: item for name, item in model.named_modules() if isinstance(item, BaseTunerLayer)
    }
    # Two weights of one module, as of stacked experts, have one adapter around the other.
    for module in reversed(adapted.values()):
        module.merge(safe_merge=True)
    for name, module in adapted.items():
        if not any(name.startswith(f"{other}.") for other in adapted):
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
    return {"adapter_parameters": sum(item.numel() for item in trained.values())}


def read_base(folder: Path) -> str:
    """The name of the model that an adapter in a folder was trained beside; '' where none is told.

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
        CheckpointError: a layer is not there or has another shape, or the weights are damaged.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    modules = dict(model.named_modules())
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: damaged ({error}); copy it again") from error
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
        elif weight.shape[axis] != of_adapter:
            problem = f"{name!r} is {list(shape)}, and the layer's weight {list(weight.shape)}"
        else:
            continue
        raise CheckpointError(
            f"{folder}: belongs to another model: {problem}; name the one that it was trained "
            f"beside ({read_base(folder) or 'its config does not say which'})"
        )


def load_adapted(model: "PreTrainedModel", *, folder: Path) -> "PeftModel":
    """The model with an adapter beside its weights; `merge_and_unload` gives the merged one.

    Raises:
        CheckpointError: peft is not installed, or cannot use the adapter.
    """
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError("adapters need peft; install it: `pip install 'limbeck[train]'`")
    import peft  # noqa: PLC0415  (slow to import)

    try:
        with warnings.catch_warnings():
            # peft asks transformers for what the latter has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            return peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except Exception as error:  # whatever a reader of another's format meets
        raise CheckpointError(f"{folder}: peft cannot use it: {str(error)[:300]}") from error
