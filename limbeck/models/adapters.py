"""Low-rank adapters: a few trained weights beside frozen ones (LoRA: Hu et al. 2021,
arXiv:2106.09685), by the library peft.
"""

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import PositiveInt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
"""Before the names in files of peft, whose own model wraps ours."""
FOLDER = "adapter"
"""Within a checkpoint: the adapter as peft saves it."""
WEIGHTS = "adapter_model.safetensors"


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
        with warnings.catch_warnings():
            # Of a head that is the embeddings: `merge_adapter` parts them.
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
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

    trained = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
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
    untie(model)
    # Two weights of one module, as of stacked experts, have one adapter around the other.
    for module in reversed(adapted.values()):
        module.merge(safe_merge=True)
    for name, module in adapted.items():
        if not any(name.startswith(f"{other}.") for other in adapted):
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
    return {"adapter_parameters": sum(item.numel() for item in trained.values())}


def untie(model: "PreTrainedModel") -> None:
    """Give a head that is the embeddings its own weights where an adapter changes one of the two.

    In a checkpoint they are one matrix otherwise, and both would change.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    pair = model.get_output_embeddings(), model.get_input_embeddings()
    head, embeddings = (
        module.get_base_layer() if isinstance(module, BaseTunerLayer) else module for module in pair
    )
    is_adapted = any(isinstance(module, BaseTunerLayer) for module in pair)
    if not (is_adapted and isinstance(head, nn.Linear) and isinstance(embeddings, nn.Embedding)):
        return
    if head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
