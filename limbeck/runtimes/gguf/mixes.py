"""Which of llama.cpp's types each matrix of floats gets.

The mixes Q4_K_M and Q6_K are those of llama.cpp's own quantiser (`llama_tensor_get_type_impl` in
src/llama-quant.cpp), without an importance matrix. Left out: its exception for models of 70 B.
"""

from gguf import GGMLQuantizationType as Kind

from limbeck.runtimes.architecture import Architecture

MIXES = {"Q4_K_M": Kind.Q4_K, "Q6_K": Kind.Q6_K}
"""The type of most matrices."""
SHORT_ROWS = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}
"""What rows get that are no whole blocks of 256."""
LONG_BLOCK = 256
TABLES = {Kind.Q4_0: Kind.Q8_0, Kind.Q4_1: Kind.Q8_0, Kind.TQ2_0: Kind.Q4_0, Kind.TQ1_0: Kind.Q4_0}
"""The type of embeddings and head, where it is another than that of the layers."""
EMBEDDINGS, HEAD = "token_embd.weight", "output.weight"
SENSITIVE = ("attn_v.weight", "attn_qkv.weight", "ffn_down.weight", "ffn_down_exps.weight")
FEW_EXPERTS = 8
"""Mixtures of so many spend more bits on attention, which is small beside the experts."""
ATTENTION_OF_FEW = {
    "attn_v.weight": Kind.Q8_0,
    "attn_k.weight": Kind.Q8_0,
    "attn_output.weight": Kind.Q5_K,
}


def find_kind(weights: str) -> Kind:
    """The type of most matrices in a file of these weights."""
    return MIXES.get(weights) or Kind[weights]


def choose_kind(weights: str, name: str, *, columns: int, architecture: Architecture) -> Kind:
    """The type of a matrix of floats, by its name in the file and the length of its rows."""
    kind = find_kind(weights)
    if weights not in MIXES:
        return TABLES.get(kind, kind) if name in (EMBEDDINGS, HEAD) else kind
    kind = _choose_of_mix(kind, name, architecture=architecture)
    return SHORT_ROWS.get(kind, kind) if columns % LONG_BLOCK else kind


def _choose_of_mix(kind: Kind, name: str, *, architecture: Architecture) -> Kind:
    if name == HEAD or (name == EMBEDDINGS and architecture.is_tied):
        return Kind.Q6_K
    if not name.startswith("blk."):
        return kind
    number, _, part = name.removeprefix("blk.").partition(".")
    mixture = architecture.mixture
    if mixture is not None and mixture.num_experts == FEW_EXPERTS and part in ATTENTION_OF_FEW:
        found = ATTENTION_OF_FEW[part]
        return found if kind == Kind.Q4_K or found == Kind.Q8_0 else kind
    if part in SENSITIVE and _gets_more_bits(int(number), num_layers=len(architecture.layers)):
        return Kind.Q6_K
    return kind


def _gets_more_bits(layer: int, *, num_layers: int) -> bool:
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
