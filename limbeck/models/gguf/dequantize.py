"""A GGUF file as a model and tokenizer of transformers, in float32.

Transformers unpacks the weights. What it does not know of a file it leaves out without a word, so
that is looked for here: values that found no place, rotary factors, and how text is cut.
"""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from limbeck.contracts.errors import CheckpointError
from limbeck.models.gguf.header import ROTARY_FACTORS, Header
from limbeck.models.gguf.parse_once import parse_once

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SINGLE_DIGITS = r"\p{N}"
SPLITS: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    (SINGLE_DIGITS, GPT2_SPLIT),
) | {
    "deepseek-v3": (
        r"\p{N}{1,3}",
        r"[一-龥぀-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "chatglm-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
"""The expressions by which llama.cpp cuts text (`llama-vocab.cpp`), where transformers would cut as
GPT-2 does. Each is held against llama.cpp when a file is read."""
SETTINGS: Mapping[str, str] = {
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""What a file states, after its architecture's name, and the field of a config that means it."""
EXPERT_COUNTS = ("num_experts", "num_local_experts")
SCALED_BY_WIDTH: Mapping[str, int] = {"gemma2": 46, "gemma3": 62}
"""With so many layers, llama.cpp scales attention by hidden size over heads, not by head width."""
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The only scaling that files hold as factors; `factor` itself is the largest of them."""


def load_gguf(header: Header) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the model, both as transformers saves and loads them.

    Raises:
        CheckpointError: transformers does not know the architecture, or would leave a part out.
    """
    with parse_once():
        tokenizer = load_gguf_tokenizer(header)
        packed, info = _load_packed(header)
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{header.path}: holds no values for {missing[:5]}; transformers cannot read this "
            f"file of architecture {header.architecture!r} whole"
        )
    model = _unpack(packed)
    _check_size(model, header=header)
    _take_rotary_factors(model, header=header)
    return tokenizer, model.eval()


def _load_packed(header: Header) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model as transformers reads it, and which of its weights found values."""
    try:
        found = AutoModelForCausalLM.from_pretrained(
            header.path.parent,
            gguf_file=header.path.name,
            config=describe_gguf(header),
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:  # whatever a reader of another's format meets
        raise CheckpointError(
            f"{header.path}: transformers cannot read this file (architecture "
            f"{header.architecture!r}, {', '.join(header.types)}): {str(error)[:400]}"
        ) from error
    return cast(tuple[PreTrainedModel, dict[str, Any]], found)


def load_gguf_tokenizer(header: Header) -> PreTrainedTokenizerBase:
    """The tokenizer in a file, without its weights.

    Raises:
        CheckpointError: transformers does not know its kind.
    """
    path = header.path
    try:
        found = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    except Exception as error:  # whatever a reader of another's format meets
        raise CheckpointError(
            f"{path}: transformers cannot read its tokenizer: {str(error)[:300]}"
        ) from error
    tokenizer = _drop_own_tokens(found, header=header)
    _set_split(tokenizer, header=header)
    return tokenizer


def describe_gguf(header: Header) -> PreTrainedConfig:
    """The architecture of the model in a file.

    Raises:
        CheckpointError: transformers does not know it, or would leave a part of it out.
    """
    path = header.path
    try:
        config = copy.deepcopy(_read_config(path, path.stat().st_mtime_ns))
    except Exception as error:  # whatever a reader of another's format meets
        raise CheckpointError(
            f"{path}: transformers does not read GGUF files of architecture "
            f"{header.architecture!r}: {str(error)[:300]}; name the published checkpoint's folder"
        ) from error
    _complete(config, header=header)
    return config


def _complete(config: PreTrainedConfig, *, header: Header) -> None:
    """State what the file says and transformers leaves at its own default.

    Raises:
        CheckpointError: it has experts, and transformers reads a dense model, or it scales its
            rotary positions as no config can say.
    """
    stated = {
        name.removeprefix(f"{header.architecture}."): value for name, value in header.values.items()
    }
    known = config.to_dict()
    if stated.get("expert_count") and not {*EXPERT_COUNTS} & known.keys():
        raise CheckpointError(
            f"{header.path}: has experts, and transformers reads files of architecture "
            f"{header.architecture!r} as dense ones; name the published checkpoint's folder"
        )
    for name, field in SETTINGS.items():
        if name in stated and field in known:
            setattr(config, field, stated[name])
    scaling = stated.get("rope.scaling.type", "none")
    if scaling == "linear":
        rotary = config.rope_parameters
        # Gemma 3 scales the positions of its layers without a window.
        scaled = rotary if "rope_theta" in rotary else rotary["full_attention"]
        scaled.update({"rope_type": "linear", "factor": stated["rope.scaling.factor"]})
    elif scaling != "none" and config.rope_parameters.get("rope_type", "default") == "default":
        raise CheckpointError(
            f"{header.path}: scales its rotary positions ({scaling}), which transformers leaves "
            "out when it reads a GGUF file; name the published checkpoint's folder"
        )
    if "query_pre_attn_scalar" in known and "attention.key_length" in stated:
        by_width = config.num_hidden_layers == SCALED_BY_WIDTH.get(header.architecture)
        width = config.hidden_size // config.num_attention_heads
        width = width if by_width else stated["attention.key_length"]
        setattr(config, "query_pre_attn_scalar", width)  # noqa: B010


@functools.lru_cache(maxsize=8)
def _read_config(path: Path, modified: int) -> PreTrainedConfig:
    """Kept: with a large vocabulary this takes ten seconds, and a check asks several times."""
    del modified
    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)


def _unpack(packed: PreTrainedModel) -> PreTrainedModel:
    """The model without the traces of its file, which transformers refuses to save."""
    values = packed.config.to_dict()
    values.pop("quantization_config", None)
    config = type(packed.config).from_dict(values)
    with no_init_weights():
        model = type(packed)(config)
    model.load_state_dict(packed.state_dict(), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = copy.deepcopy(packed.generation_config)
    return model


def _check_size(model: PreTrainedModel, *, header: Header) -> None:
    loaded = sum(item.numel() for item in model.parameters())
    if loaded != header.num_values:
        raise CheckpointError(
            f"{header.path}: holds {header.num_values:,} values, of which transformers makes a "
            f"{type(model).__name__} of {loaded:,}; a part would be left out, so the file cannot "
            "be used; name the published checkpoint's folder"
        )


@torch.no_grad()
def _take_rotary_factors(model: PreTrainedModel, *, header: Header) -> None:
    """Scale rotary frequencies as the file's factors do."""
    parameters = model.config.get_text_config().rope_parameters
    factors = _read_floats(header, ROTARY_FACTORS)
    if factors is None:
        return
    config = model.config.get_text_config()
    plain = find_frequencies(model)
    config.rope_parameters = {
        **LLAMA3_SCALING,
        "rope_theta": (parameters or {})["rope_theta"],
        "factor": float(factors.max()),
    }
    rebuilt = type(model)(model.config)
    scaled = find_frequencies(rebuilt)
    if not torch.allclose(scaled, plain / factors, rtol=1e-4):
        raise CheckpointError(
            f"{header.path}: its {ROTARY_FACTORS} are not those of Llama 3, and transformers "
            "leaves them out; name the published checkpoint's folder"
        )
    for module in model.modules():
        if "inv_freq" in dict(module.named_buffers(recurse=False)):
            module.get_buffer("inv_freq").copy_(scaled)


def find_frequencies(model: PreTrainedModel) -> torch.Tensor:
    """The frequencies of a model's one rotary embedding."""
    found = [buffer for name, buffer in model.named_buffers() if name.endswith(".inv_freq")]
    if len(found) != 1:
        raise CheckpointError(
            f"{type(model).__name__}: {len(found)} rotary embeddings where the file scales one"
        )
    return found[0].float().cpu()


def _read_floats(header: Header, name: str) -> torch.Tensor | None:
    """A float32 tensor of the file; None where it has none of this name."""
    for tensor in header.tensors:
        if tensor.name == name:
            data = _read_bytes(header.path, start=tensor.offset, size=tensor.num_bytes)
            return torch.frombuffer(bytearray(data), dtype=torch.float32)
    return None


def _read_bytes(path: Path, *, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _drop_own_tokens(
    tokenizer: PreTrainedTokenizerBase, *, header: Header
) -> PreTrainedTokenizerBase:
    """The tokenizer without tokens that its class adds to the file's, which no row stands for."""
    listed = header.values.get("tokenizer.ggml.tokens", 0)
    num_tokens = len(listed) if isinstance(listed, list) else int(listed)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    known = [item for item in content["added_tokens"] if item["id"] < num_tokens]
    if len(known) == len(content["added_tokens"]):
        return tokenizer
    content["added_tokens"] = known
    vocabulary = {token for token, index in tokenizer.get_vocab().items() if index < num_tokens}
    special = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str) and token in vocabulary
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        chat_template=tokenizer.chat_template,
        **special,
    )


def _set_split(tokenizer: PreTrainedTokenizerBase, *, header: Header) -> None:
    """Cut text as the vocabulary was learnt, where transformers does not know how."""
    splits = SPLITS.get(header.pre_tokenizer)
    if splits is None or header.values.get("tokenizer.ggml.model") != "gpt2":
        return
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), behavior="isolated") for split in splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
