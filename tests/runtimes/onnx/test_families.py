"""Every published family as a bundle predicts as transformers does, experts included."""

import numpy as np
import pytest

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import open_config
from limbeck.runtimes.architecture import CONVENTIONS, describe_architecture
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.parity import compare
from limbeck.runtimes.transformers import TransformersRuntime
from tests.support.families import FAMILIES, PARTIAL_ROTARY, make_family

EXPORTED = [name for name, (kind, _) in FAMILIES.items() if kind in OnnxRuntime.architectures]
CHANGED = {name: {"rope_parameters": PARTIAL_ROTARY} for name in ("Phi-4 mini", "Mistral")}
"""Phi-4 without what is refused of it below; Mistral rotates whole heads whatever is stated."""
LENGTHS = (3, 15, 16, 17, 18, 60)
"""Around the families' window of 16, and far beyond it."""


@pytest.mark.parametrize("name", EXPORTED)
def test_predicts_and_decodes_as_transformers(name, tmp_path):
    folder = make_family(tmp_path / "model", name=name, **CHANGED.get(name, {}))
    OnnxRuntime().write(folder, tmp_path / "bundle")
    reference = TransformersRuntime().open_model(folder, num_threads=1)
    bundle = OnnxRuntime().open_model(tmp_path / "bundle", num_threads=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 200, size=length).tolist() for length in LENGTHS]
    found = compare(reference, bundle, prompts=prompts)
    assert found.max_logit_difference < 1e-5 * max(found.max_logit, 1)
    assert found.argmax_agreement_ratio == 1.0
    # The same rows token by token, over a cache.
    session = bundle.open_session(num_slots=len(prompts))
    session.admit([prompt[:3] for prompt in prompts])
    late = rng.integers(3, 200, size=(24, len(prompts)))
    logits = np.stack([session.step(tokens.tolist()) for tokens in late], axis=1)
    rows = [[*prompt[:3], *column] for prompt, column in zip(prompts, late.T.tolist(), strict=True)]
    expected = reference.compute_logits(rows, start=3)
    assert np.abs(logits - expected).max() < 1e-5 * max(found.max_logit, 1)


def test_every_family_of_the_table_is_exported():
    published = {*CONVENTIONS} - {"limbeck_moe"}
    assert {FAMILIES[name][0] for name in EXPORTED} == published
    assert OnnxRuntime.architectures == {*CONVENTIONS}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Gemma 3", {"use_bidirectional_attention": True}, "both directions"),
        ("Gemma 3", {"hidden_activation": "relu"}, "activation 'relu'"),
        ("OLMoE", {"clip_qkv": 8.0}, "clip_qkv 8.0"),
        ("Mixtral", {"hidden_act": "gelu_pytorch_tanh"}, "experts with activation"),
        ("Phi-4 mini", {}, "'longrope'"),
        ("GLM-4", {"head_dim": 16}, "rotates 8 of 16 channels"),
        ("Qwen3", {"layer_types": ["full_attention", "chunked_attention"]}, "'chunked_attention'"),
        ("Qwen3", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
    ],
)
def test_what_no_graph_computes_is_refused(name, changes, message, tmp_path):
    config = open_config(make_family(tmp_path / "model", name=name))
    for field, value in changes.items():
        setattr(config, field, value)
    with pytest.raises(CheckpointError, match=message):
        describe_architecture(config, number_format="float32", runtime=OnnxRuntime(), place="model")
