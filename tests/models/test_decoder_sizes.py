"""The sizes of a described decoder are those of the config that its description makes."""

import dataclasses

import pytest
from transformers import Qwen3Config

from limbeck.models.config import DenseModel, MoeModel
from limbeck.models.decoder_sizes import DecoderSizes
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.vocabulary import Vocabulary
from limbeck.planning.plan import _stored_bytes
from limbeck.pruning.shapes import count_groups, describe_cut
from limbeck.sizing.parameters import size_model

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 96,
}
SPARSE = {"kind": "moe", "moe_intermediate_size": 8, "num_experts": 12, "num_experts_per_tok": 3}
DENSE = DenseModel(kind="dense", intermediate_size=48, **SHAPE)
MIXTURES = {
    "plain": {},
    "shared": {"n_shared_experts": 2, "scoring_func": "sigmoid", "n_group": 3, "topk_group": 2},
    "attention": {"fusion": "attention", "fusion_heads": 2, "fusion_rank": 5},
    "full_attention": {"fusion": "full_attention", "fusion_heads": 8},
}
DESCRIBED = {"dense": DENSE} | {
    name: MoeModel.model_validate({**SPARSE, **SHAPE, **options})
    for name, options in MIXTURES.items()
}
"""One of every kind that has sizes, and of every option that changes them."""
VOCABULARY = Vocabulary(60)
CUTS = ({}, {"channels": 24}, {"heads": 1}, {"layers": 2}, {"hidden": 16, "heads": 1, "layers": 3})


PAIRS = [
    (name, kept)
    for name, described in DESCRIBED.items()
    for kept in CUTS
    # A mixture has no dense channels.
    if "channels" not in kept or described.kind == "dense"
]


@pytest.fixture(params=PAIRS, ids=str)
def pair(request):
    """Sizes and config of a model, pruned or not."""
    name, kept = request.param
    described = DESCRIBED[name]
    sizes, config = described.sizes(VOCABULARY), described.describe(VOCABULARY)
    if kept:
        sizes, config = (describe_cut(item, num_kept=kept) for item in (sizes, config))
    return sizes, config


def read(config, name):
    """A field as sizing reads it: what is missing counts as nothing."""
    return getattr(config, name, None) or None


def test_every_field_is_that_of_the_config(pair):
    sizes, config = pair
    for field in dataclasses.fields(DecoderSizes):
        assert read(sizes, field.name) == read(config, field.name), field.name
    assert sizes.layer_types == getattr(config, "layer_types", None)
    assert count_groups(sizes) == count_groups(config)


def test_every_field_that_sizing_reads_is_that_of_the_config(pair, monkeypatch):
    sizes, config = pair
    names = set()
    for kind in (Qwen3Config, LimbeckMoeConfig, DecoderSizes):
        plain = kind.__getattribute__

        def note(self, name, plain=plain):
            names.add(name)
            return plain(self, name)

        monkeypatch.setattr(kind, "__getattribute__", note)
    for item in (sizes, config):
        size_model(item, context_tokens=64)
        _stored_bytes(item)
        count_groups(item)
    monkeypatch.undo()
    fields = {name for name in names if not name.startswith("_")}
    fields -= {"get_text_config", "to_dict", "attribute_map", "sub_configs", "is_encoder_decoder"}
    assert {"hidden_size", "model_type", "qk_rope_head_dim", "layer_types", "dtype"} <= fields
    for name in fields:
        assert read(sizes, name) == read(config, name), name


def test_both_cost_the_same(pair):
    sizes, config = pair
    assert size_model(sizes, context_tokens=64) == size_model(config, context_tokens=64)
    assert _stored_bytes(sizes) == _stored_bytes(config) == 4
