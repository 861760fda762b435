"""Cuts tried without numbers: what the stage would find out after training is refused before."""

import pytest
from transformers import CONFIG_MAPPING

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import build_without_weights
from limbeck.models.known import KnownModel
from limbeck.pruning.dry_run import try_cut
from limbeck.pruning.known_inputs import refuse_cut
from tests.support.families import EXPERTS, FAMILIES, SIZES


def build(model_type, **changes):
    fields = {**SIZES, "num_hidden_layers": 6, **changes}
    config = CONFIG_MAPPING[model_type](**{k: v for k, v in fields.items() if v is not None})
    return build_without_weights(config)


def test_all_kinds_together_leave_a_model():
    llama = build("llama")
    try_cut(llama, num_kept={"channels": 48, "heads": 1, "layers": 3, "hidden": 32})
    mixture = build("qwen3_moe", **EXPERTS)
    try_cut(mixture, num_kept={"heads": 1, "experts": 4, "layers": 1})


@pytest.mark.parametrize(
    ("model_type", "changes", "num_kept", "match"),
    [
        ("helium", {}, {"heads": 1}, r"o_proj\.weight, \[64, 32\] would be left"),
        ("cohere2", {}, {"hidden": 48}, "has no RMS norms with weights and a `rms_norm_eps`"),
        ("olmo", {"head_dim": None}, {"hidden": 48}, "has no RMS norms"),
        (
            "deepseek_v3",
            {**FAMILIES["DeepSeek-V3"][1], "first_k_dense_replace": 3},
            {"layers": 4},
            r"layers cannot be left out: of model\.layers\.\d\.mlp",
        ),
        (
            "qwen2_moe",
            {**EXPERTS, "head_dim": None, "decoder_sparse_step": 2, "mlp_only_layers": []},
            {"layers": 4},
            "layers cannot be left out",
        ),
    ],
)
def test_what_no_rule_covers_is_refused(model_type, changes, num_kept, match):
    with pytest.raises(CheckpointError, match=match):
        try_cut(build(model_type, **changes), num_kept=num_kept)


def test_a_model_without_attention_is_refused_by_name():
    config = CONFIG_MAPPING["mamba"](hidden_size=32, num_hidden_layers=2, vocab_size=64)
    model = KnownModel("mamba", None, lambda: config)
    shares = {"channels": (0.25, 1), "heads": (0.5, 1)}
    messages = [refusal.message for refusal in refuse_cut(model, shares=shares)]
    assert len(messages) == 2
    assert "no layer has `mlp.gate_proj`" in messages[0]
    assert "has no `self_attn`" in messages[1]
