"""INT8 models: per-channel weights and per-token activations, as integers in memory and on disk.

A weight row has one float32 scale, absmax / 127; an activation row gets its own at run time, so
nothing is calibrated. What is not a linear layer or an embedding (norms, gates, the stacked experts
of a mixture) stays in floating point.

The folder keeps the tensor names of compressed-tensors' "int-quantized" format: `<module>.weight`
int8, `<module>.weight_scale` [out, 1]. With float embeddings it *is* that format, which stock
transformers reads. With int8 embeddings it calls itself `limbeck-int8`, because those
readers leave embeddings alone and would look up integers as if they were weights.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int, Int8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from limbeck.contracts.errors import CheckpointError

LEVELS = 127
"""Integers run from -127 to 127: symmetric, so zero is exact and signs cost nothing."""
SMALLEST_ABSMAX = 1e-10
"""Keeps the scale of an all-zero row finite."""
EXACT_TERMS = 1040
"""Products of two int8 that float32 can add without rounding: 1040 * 127 * 127 < 2 ** 24."""
WEIGHTS = "model.safetensors"
METHOD = "limbeck-int8"
Embeddings = Literal["int8", "float32"]


def absmax_scales(x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows 1"]:
    """The float32 step of each row: its largest magnitude becomes 127."""
    return x.detach().float().abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ABSMAX) / LEVELS


def round_to_steps(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Integers, as float32: the nearest multiple of each row's step, halves to even."""
    return torch.round(x.float() / scales)


def multiply_integers(
    left: Int8[Tensor, "rows terms"], right: Int8[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T, exactly, as float32: in int32 where the CPU has instructions for that."""
    # One term makes the strides of right.T ambiguous, which torch's kernel mistakes.
    if left.device.type == "cpu" and left.shape[1] > 1 and torch.cpu._is_vnni_supported():
        return torch._int_mm(left, right.t()).float()
    return multiply_in_float32(left, right)


def multiply_in_float32(
    left: Int8[Tensor, "rows terms"], right: Int8[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T where int8 products restrict the shapes, or are slower than float ones.

    Without such instructions torch's int8 product takes 7 to 27 times as long at 64 rows. Runs of
    terms are short enough for float32 to add them exactly.
    """
    total = torch.zeros(left.shape[0], right.shape[0], device=left.device)
    for start in range(0, left.shape[1], EXACT_TERMS):
        part = slice(start, start + EXACT_TERMS)
        total += left[:, part].float() @ right[:, part].float().t()
    return total


class Int8Linear(nn.Module):
    """A linear layer on integers; `weight` may be the same tensor as an embedding's."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Int8[Tensor, "out channels"],
        *,
        scale: Float[Tensor, "out 1"],
        bias: Float[Tensor, " out"] | None,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        """The product, scaled back; in the dtype of the input."""
        rows = x.reshape(-1, self.in_features).float()
        scales = absmax_scales(rows)
        integers = round_to_steps(rows, scales).to(torch.int8)
        outputs = multiply_integers(integers, self.weight) * self.weight_scale.t() * scales
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*x.shape[:-1], self.out_features).to(x.dtype)


class Int8Embedding(nn.Module):
    """A table of integer rows, each with its scale."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(
        self, weight: Int8[Tensor, "tokens hidden"], *, scale: Float[Tensor, "tokens 1"]
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """The rows, as float32."""
        return self.weight[ids].float() * self.weight_scale[ids]


def describe(*, embeddings: Embeddings, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """The `quantization_config` that says how a folder's integers are to be read."""
    axis = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**axis, "strategy": "channel", "dynamic": False},
        "input_activations": {**axis, "strategy": "token", "dynamic": True},
        "output_activations": None,
        "format": "int-quantized",
    }
    method = "compressed-tensors" if embeddings == "float32" else METHOD
    described: dict[str, Any] = {
        "quant_method": method,
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
    }
    return described | ({"embeddings": embeddings} if method == METHOD else {})


def is_int8(config: Mapping[str, Any]) -> bool:
    """Whether a model's `config.json` says that its weights are stored as this module's integers.

    True for compressed-tensors folders of the same scheme too, whoever wrote them.
    """
    described = config.get("quantization_config") or {}
    if described.get("quant_method") == METHOD:
        return True
    groups = (described.get("config_groups") or {}).values()
    return (
        described.get("quant_method") == "compressed-tensors"
        and described.get("format") == "int-quantized"
        and bool(groups)
        and all(_is_same_scheme(group) for group in groups)
    )


def _is_same_scheme(group: Mapping[str, Any]) -> bool:
    weights = group.get("weights") or {}
    inputs = group.get("input_activations") or {}
    return (
        group.get("targets") == ["Linear"]
        and (weights.get("num_bits"), weights.get("strategy")) == (8, "channel")
        and (inputs.get("num_bits"), inputs.get("strategy")) == (8, "token")
        and bool(weights.get("symmetric", True) and inputs.get("symmetric", True))
    )


def find_quantized(
    model: nn.Module, *, described: Mapping[str, Any]
) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a float model whose weights are integers, by name, embeddings first."""
    ignore = described.get("ignore") or ()
    modules = list(model.named_modules())
    if described.get("embeddings") == "int8":
        yield from ((name, module) for name, module in modules if isinstance(module, nn.Embedding))
    for name, module in modules:
        if isinstance(module, nn.Linear) and not any(_matches(name, item) for item in ignore):
            yield name, module


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return fnmatch.fnmatchcase(name, pattern)


def quantize_in_place(model: nn.Module, *, described: Mapping[str, Any]) -> None:
    """Replace the modules that `described` names by integer ones; tied weights stay one tensor."""
    done: dict[int, tuple[Tensor, Tensor]] = {}
    for name, module in list(find_quantized(model, described=described)):
        weight = cast(Tensor, module.weight)
        if id(weight) not in done:
            scale = absmax_scales(weight)
            done[id(weight)] = (round_to_steps(weight.detach(), scale).to(torch.int8), scale)
        integers, scale = done[id(weight)]
        model.set_submodule(name, _make_int8(module, integers, scale))


def _make_int8(module: nn.Module, integers: Tensor, scale: Tensor) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return Int8Embedding(integers, scale=scale)
    bias = cast(Tensor | None, module.bias)
    return Int8Linear(integers, scale=scale, bias=None if bias is None else bias.detach().float())


def save_int8(model: PreTrainedModel, folder: Path) -> None:
    """Write an INT8 model's config, generation config and tensors; tied tensors are stored once."""
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


def load_int8(folder: Path) -> PreTrainedModel:
    """The INT8 model in a folder, ready to answer, on the CPU.

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
    described = config.quantization_config
    if described["quant_method"] == METHOD and described.get("embeddings") != "int8":
        raise CheckpointError(
            f"{folder / 'config.json'}: quantization_config.embeddings is "
            f"{described.get('embeddings')!r}; expected 'int8'"
        )
    quantize_in_place(model, described=described)
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
    integers = target.dtype == torch.int8
    if found.shape != target.shape or (found.dtype == torch.int8) != integers:
        raise CheckpointError(
            f"{path}: tensor {name!r} is {found.dtype} {list(found.shape)}, expected "
            f"{target.dtype} {list(target.shape)}; the config belongs to another model"
        )
    return found
