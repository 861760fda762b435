"""Limbeck's own mixtures as bundles predict as in torch, however their routers pick and weigh."""

import numpy as np
import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.config import MoeModel
from limbeck.models.moe.layers import Gate
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.parity import compare
from limbeck.runtimes.transformers import TransformersRuntime

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 8,
    "moe_intermediate_size": 12,
    "initializer_range": 0.2,
}
ROUTERS = {
    "softmax": {},
    "not normalised": {"norm_topk_prob": False, "routed_scaling_factor": 2.5},
    "one expert": {"num_experts_per_tok": 1},
    "sigmoid": {"scoring_func": "sigmoid"},
    "sigmoid, not normalised": {"scoring_func": "sigmoid", "norm_topk_prob": False},
    "groups": {"scoring_func": "sigmoid", "n_group": 4, "topk_group": 2},
    "groups of one": {"n_group": 8, "topk_group": 3},
    "shared expert": {"n_shared_experts": 2},
}


@pytest.fixture
def save(tokenizer, tmp_path):
    def save(*, biased=False, int8=False, **changes):
        described = MoeModel(kind="moe", **{**SHAPE, **changes})
        model = described.build(tokenizer=tokenizer, seed=0).eval()
        if biased:
            for module in model.modules():
                if isinstance(module, Gate):
                    module.balance_bias.normal_(std=0.3)
        if int8:
            model = convert(model, number_format=Int8(kind="int8"))
        save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("router", ROUTERS)
def test_predicts_as_torch(router, biased, save, tmp_path):
    torch.manual_seed(0)
    folder = save(biased=biased, **ROUTERS[router])
    found = OnnxRuntime().write(folder, tmp_path / "bundle")
    reference = TransformersRuntime().open_model(folder, num_threads=1)
    bundle = OnnxRuntime().open_model(tmp_path / "bundle", num_threads=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 30, size=length).tolist() for length in (1, 5, 40)]
    compared = compare(reference, bundle, prompts=prompts)
    assert compared.max_logit_difference < 1e-5 * max(compared.max_logit, 1)
    assert found.parameters == reference.size().parameters
    assert found.active_parameters == reference.size().active_parameters


def test_experts_of_an_int8_checkpoint_stay_floats(save, tmp_path):
    folder = save(int8=True)
    OnnxRuntime().write(folder, tmp_path / "bundle")
    reference = TransformersRuntime().open_model(folder, num_threads=1)
    bundle = OnnxRuntime().open_model(tmp_path / "bundle", num_threads=1)
    prompts = np.random.default_rng(0).integers(3, 30, size=(4, 12)).tolist()
    assert compare(reference, bundle, prompts=prompts).mean_kl < 0.01


def test_experts_fused_by_attention_are_refused(save, tmp_path):
    folder = save(fusion="attention")
    with pytest.raises(CheckpointError, match="experts fused by 'attention' cannot be exported"):
        OnnxRuntime().write(folder, tmp_path / "bundle")
