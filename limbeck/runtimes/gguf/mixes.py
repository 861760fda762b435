"""Which of llama.cpp's types a tensor gets, by its name in the file and its architecture."""

from gguf import GGMLQuantizationType as Kind

from limbeck.models.gguf.types import MIXES, MatrixRole, choose_type, gets_more_bits, shorten
from limbeck.runtimes.architecture import Architecture

EMBEDDINGS, HEAD = "token_embd.weight", "output.weight"
SENSITIVE = ("attn_v.weight", "attn_qkv.weight", "ffn_down.weight", "ffn_down_exps.weight")
FEW_EXPERTS = 8
"""Mixtures of so many spend more bits on attention, which is small beside the experts."""
ATTENTION_OF_FEW = {
    "Q4_K_M": {"attn_v.weight": "Q8_0", "attn_k.weight": "Q8_0", "attn_output.weight": "Q5_K"},
    "Q6_K": {"attn_v.weight": "Q8_0", "attn_k.weight": "Q8_0"},
}


def find_kind(weights: str) -> Kind:
    """The type of most matrices in a file of these weights."""
    return Kind[MIXES.get(weights, weights)]


def choose_kind(weights: str, name: str, *, columns: int, architecture: Architecture) -> Kind:
    """The type of a matrix of floats, by its name in the file and the length of its rows."""
    mixture = architecture.mixture
    if mixture is not None and mixture.num_experts == FEW_EXPERTS:
        found = ATTENTION_OF_FEW.get(weights, {}).get(_part(name))
        if found is not None:
            return Kind[shorten(found, columns=columns)]
    role = _find_role(name, architecture=architecture)
    return Kind[choose_type(weights, role=role, columns=columns)]


def _find_role(name: str, *, architecture: Architecture) -> MatrixRole:
    if name in (EMBEDDINGS, HEAD):
        return "head" if name == HEAD or architecture.is_tied else "lookup"
    if _part(name) not in SENSITIVE:
        return "matrix"
    layer = int(name.removeprefix("blk.").partition(".")[0])
    is_sensitive = gets_more_bits(layer, num_layers=len(architecture.layers))
    return "sensitive" if is_sensitive else "matrix"


def _part(name: str) -> str:
    """The name in its layer."""
    return name.removeprefix("blk.").partition(".")[2]
