"""A mixture as a stock Qwen3-MoE folder, for engines that know that architecture.

Left out: the exchange of tensors (`limbeck.models.interchange`); here transformers answers with it.
"""

from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.models.interchange import to_qwen3_moe
from limbeck.models.loading import load_model, load_tokenizer, save_checkpoint
from limbeck.models.moe import LimbeckMoeForCausalLM
from limbeck.models.sizing import size_model
from limbeck.runtimes.bundle import Bundle, write_bundle
from limbeck.runtimes.transformers import open_steps, read

__all__ = ["open_steps", "read", "write"]


def write(checkpoint: Path, *, folder: Path) -> Bundle:
    """Write a folder that stock transformers loads; what `bundle.json` says.

    Raises:
        CheckpointError: the checkpoint is no mixture of ours, or does what Qwen3-MoE cannot.
    """
    model = load_model(checkpoint)
    if not isinstance(model, LimbeckMoeForCausalLM):
        raise CheckpointError(
            f"{checkpoint}: stock transformers reads a {model.config.model_type!r} model as it "
            "is; `runtime: qwen3_moe` is for limbeck_moe"
        )
    theirs = to_qwen3_moe(model)
    save_checkpoint(theirs, tokenizer=load_tokenizer(checkpoint), folder=folder)
    size = size_model(theirs.config, context_tokens=1)
    bundle = Bundle(
        runtime="qwen3_moe", format="float32", architecture="qwen3_moe",
        parameters=size.parameters, active_parameters=size.active_parameters,
        max_tokens=model.config.max_position_embeddings,
    )  # fmt: skip
    write_bundle(folder, bundle)
    return bundle
