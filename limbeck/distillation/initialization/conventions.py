"""What makes a teacher's weights mean the same in its student: rotary base, norms, scales.

Modules are compared by what they compute, never by their names or their classes' names: the same
weight multiplies in one architecture and is added to one in another.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from limbeck.models.norms import is_norm
from limbeck.models.structure import find_layers

MAX_RELATIVE_ERROR = 0.02
"""Of outputs that count as equal: a teacher may compute in 16 bits."""
NUM_TOKENS = 12
"""Length of the sequence on which attention is compared."""
WRITERS = ("o_proj", "down_proj")
"""Projections whose outputs are added to the residual stream."""
INNER_NORM, SANDWICH_NORM = "post_attention_layernorm", "pre_feedforward_layernorm"
"""The norm before the feed-forward block: the second where one more follows attention itself, which
then bears the first name."""


def source_name(name: str, *, own: nn.Module, source: nn.Module) -> str:
    """The module of a teacher's layer that plays the part of one of the student's layer."""
    sandwiched = dict(source.named_children()).keys() - dict(own.named_children()).keys()
    return SANDWICH_NORM if name == INNER_NORM and SANDWICH_NORM in sandwiched else name


@torch.no_grad()
def take_norm(own: nn.Module, source: nn.Module) -> bool:
    """Whether a norm computes as the source does with the source's weight, or that plus or minus 1.

    It has that weight afterwards, or its own where none of the three makes them equal.
    """
    weight, taken = own.get_parameter("weight"), source.get_parameter("weight")
    fresh = weight.clone()
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(4, len(weight), generator=generator)
    wanted = _run_norm(source, given)
    for shift in (0.0, 1.0, -1.0):
        weight.copy_(taken.float() + shift)
        if relative_error(_run_norm(own, given), wanted) <= MAX_RELATIVE_ERROR:
            return True
    weight.copy_(fresh)
    return False


def _run_norm(norm: nn.Module, given: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    weight = norm.get_parameter("weight")
    return norm(given.to(weight)).float().cpu()


def relative_error(found: Float[Tensor, "..."], wanted: Float[Tensor, "..."]) -> float:
    """The norm of the difference over the norm of what was wanted."""
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))


@dataclass(frozen=True)
class RotaryModule:
    """The rotary embedding of a model, and the module that holds it."""

    owner: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        """The embedding."""
        return self.owner.get_submodule(self.name)


def find_rotary(model: PreTrainedModel) -> RotaryModule | None:
    """The one rotary embedding of the decoder; None where it has none, or several."""
    found = [
        RotaryModule(owner, name)
        for owner in model.modules()
        for name, child in owner.named_children()
        if "inv_freq" in dict(child.named_buffers(recurse=False))
    ]
    return found[0] if len(found) == 1 else None


def take_rotary(student: PreTrainedModel, *, teacher: PreTrainedModel) -> str | None:
    """Give the student the teacher's rotary embedding; a sentence where it cannot have it."""
    own, source = find_rotary(student), find_rotary(teacher)
    if own is None and source is None:
        return None
    if own is None or source is None:
        return "the two models do not have one rotary embedding each, so positions may mean other"
    frequencies = [_inverse_frequencies(item.module) for item in (own, source)]
    if len(frequencies[0]) != len(frequencies[1]) or torch.equal(*frequencies):
        return None
    config = student.config.get_text_config()
    taken = teacher.config.get_text_config().rope_parameters
    if not isinstance(taken, Mapping) or "rope_type" not in taken:
        return f"the teacher's rope_parameters {taken!r} are not those of one embedding"
    before, config.rope_parameters = config.rope_parameters, dict(taken)
    rotary = _build_rotary(own.module, config)
    if rotary is None or len(_inverse_frequencies(rotary)) != len(frequencies[1]):
        config.rope_parameters = before
        return (
            f"the teacher's rotary embedding ({taken['rope_type']}) does not fit heads "
            "as wide as the student's, which keeps its own"
        )
    rotary.to(student.device)
    own.owner.add_module(own.name, rotary)
    if relative_error(_inverse_frequencies(rotary), frequencies[1]) > 1e-6:
        return f"the student's rotary embedding computes otherwise from {dict(taken)!r}"
    return None


def _build_rotary(own: nn.Module, config: PreTrainedConfig) -> nn.Module | None:
    try:
        return type(own)(config)
    except RuntimeError:  # its lists of factors are for heads of which another share turns
        return None


@torch.no_grad()
def compare_rotary(student: PreTrainedModel, *, teacher: PreTrainedModel) -> str | None:
    """A sentence where the two rotary embeddings turn by other angles."""
    own, source = find_rotary(student), find_rotary(teacher)
    if own is None or source is None:
        return None
    angles = [_inverse_frequencies(item.module) for item in (own, source)]
    if len(angles[0]) != len(angles[1]) or relative_error(*angles) <= 1e-6:
        return None
    return (
        "the recipe's rope_theta differs from the teacher's, so its attention means other "
        "positions; leave rope_theta out to take the teacher's"
    )


def _inverse_frequencies(rotary: nn.Module) -> Float[Tensor, " pairs"]:
    return rotary.get_buffer("inv_freq").float().cpu()


def find_final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm after the last layer, beside the list of layers; None where there is not one."""
    parent = find_layers(model)[0].rpartition(".")[0]
    norms = [child for child in model.get_submodule(parent).children() if is_norm(child)]
    return norms[0] if len(norms) == 1 else None


@torch.no_grad()
def embedding_scale(model: PreTrainedModel) -> float:
    """The factor between a token's embedding and what the first layer reads."""
    embeddings = model.get_input_embeddings().get_parameter("weight")
    ids = torch.arange(min(8, len(embeddings)), device=embeddings.device)
    seen: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple, keywords: dict) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        seen.append(hidden[0].float())

    hook = find_layers(model)[1][0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        model(input_ids=ids.unsqueeze(0), use_cache=False)
    finally:
        hook.remove()
    plain = embeddings[ids].float()
    return float((seen[0] * plain).sum() / (plain * plain).sum().clamp_min(1e-12))


@torch.no_grad()
def take_logit_scale(student: PreTrainedModel, *, teacher: PreTrainedModel) -> str | None:
    """Give the student's last norm the factor of the teacher's logits; a sentence for no factor."""
    norm, source = find_final_norm(student), find_final_norm(teacher)
    if norm is None or source is None:
        return None
    width = student.config.get_text_config().hidden_size
    given = torch.randn(1, NUM_TOKENS, width, generator=torch.Generator().manual_seed(0))
    found, wanted = (
        _logits_of(model, norm=last, given=given)
        for model, last in ((student, norm), (teacher, source))
    )
    if relative_error(found, wanted) <= MAX_RELATIVE_ERROR:
        return None
    factor = (found * wanted).sum() / (found * found).sum().clamp_min(1e-12)
    if relative_error(found * factor, wanted) > MAX_RELATIVE_ERROR:
        return "the teacher makes other logits of the same last state, as with a soft cap"
    norm.get_parameter("weight").mul_(factor.to(norm.get_parameter("weight")))
    return None


def _logits_of(
    model: PreTrainedModel, *, norm: nn.Module, given: Float[Tensor, "1 tokens width"]
) -> Float[Tensor, "1 tokens vocab"]:
    """The logits where this goes into the last norm."""

    def replace(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given.to(arguments[0]), *arguments[1:])

    hook = norm.register_forward_pre_hook(replace)
    try:
        ids = torch.zeros(given.shape[:2], dtype=torch.long, device=model.device)
        return model(input_ids=ids, use_cache=False).logits.float().cpu()
    finally:
        hook.remove()


@torch.no_grad()
def take_residual_scale(
    student: PreTrainedModel, *, teacher: PreTrainedModel, copied: Set[Tensor]
) -> None:
    """Scale the projections that write to the residual stream as the teacher scales its blocks."""
    of_student, of_teacher = (
        float(model.config.get_text_config().to_dict().get("residual_multiplier", 1.0))
        for model in (student, teacher)
    )
    for name, parameter in student.named_parameters():
        if parameter in copied and name.split(".")[-2] in WRITERS:
            parameter.mul_(of_teacher / of_student)


def compare_windows(student: PreTrainedModel, *, teacher: PreTrainedModel) -> str | None:
    """A sentence where layers of the teacher see fewer tokens than the student's."""
    own, source = (_shortest_window(model) for model in (student, teacher))
    if source is None or own == source:
        return None
    seen = "all" if own is None else f"the latest {own}"
    return f"layers of the teacher see the latest {source} tokens, those of the student {seen}"


def _shortest_window(model: PreTrainedModel) -> int | None:
    settings = model.config.get_text_config().to_dict()
    window, kinds = settings.get("sliding_window"), settings.get("layer_types")
    has_window = kinds is None or "sliding_attention" in kinds
    longest = settings.get("max_position_embeddings") or 0
    return window if isinstance(window, int) and has_window and window < longest else None


@torch.no_grad()
def compare_attention(
    student: PreTrainedModel, teacher: PreTrainedModel, *, own: nn.Module, source: nn.Module
) -> float | None:
    """The relative difference of two attention blocks' outputs for one input.

    None where they cannot be called alike.
    """
    outputs = []
    width = student.config.get_text_config().hidden_size
    given = torch.randn(1, NUM_TOKENS, width, generator=torch.Generator().manual_seed(0))
    for model, block in ((student, own), (teacher, source)):
        rotary = find_rotary(model)
        if rotary is None:
            return None
        reference = next(block.parameters())
        hidden = given.to(reference)
        places = torch.arange(NUM_TOKENS, device=reference.device).unsqueeze(0)
        try:
            found = block(
                hidden_states=hidden,
                position_embeddings=rotary.module(hidden, places),
                attention_mask=None,
            )
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return None
        outputs.append(found[0].float().cpu())
    return relative_error(*outputs)


@torch.no_grad()
def compare_feed_forward(
    student: PreTrainedModel, teacher: PreTrainedModel, *, own: nn.Module, source: nn.Module
) -> float | None:
    """The relative difference of two feed-forward blocks' outputs for one input.

    None where they cannot be called alike.
    """
    width = student.config.get_text_config().hidden_size
    given = torch.randn(NUM_TOKENS, width, generator=torch.Generator().manual_seed(0))
    outputs = []
    for block in (own, source):
        found = block(given.unsqueeze(0).to(next(block.parameters())))
        if not isinstance(found, Tensor):
            return None
        outputs.append(found.float().cpu())
    return relative_error(*outputs)


COMPARED = {"self_attn": compare_attention, "mlp": compare_feed_forward}
"""Blocks of a layer that can be compared, by their names in transformers."""
