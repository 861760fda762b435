"""The stage: a mixture to stock transformers and back, with equal logits or a named refusal."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeForCausalLM

from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM
from limbeck.runtimes import open_answerer
from limbeck.stages import convert
from tests.support.artifacts import make_work


def run(checkpoint, target, *, architecture, **settings):
    config = convert.Config(stage="convert", checkpoint="it", architecture=architecture, **settings)
    work = make_work(target, "converted", checkpoint=checkpoint)
    return work.folder, convert.run(config, work=work)


def test_a_mixture_becomes_a_stock_folder_and_comes_back(moe, tokenizer, tmp_path):
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "ours")
    stock, metrics = run(tmp_path / "ours", tmp_path / "there", architecture="qwen3_moe")
    assert metrics["max_logit_difference"] < 1e-5 * metrics["max_logit"]
    assert type(AutoModelForCausalLM.from_pretrained(stock)) is Qwen3MoeForCausalLM
    assert open_answerer(stock, num_threads=1).answer(["\u9ad8\u8840\u538b"], max_new_tokens=2)
    back, _ = run(stock, tmp_path / "back", architecture="limbeck_moe")
    again = load_model(back)
    assert isinstance(again, LimbeckMoeForCausalLM)
    for name, item in moe.state_dict().items():
        assert torch.equal(again.state_dict()[name], item), name


def test_balance_biases_are_refused_or_dropped_and_counted(moe, tokenizer, tmp_path):
    for layer in moe.model.layers:
        layer.mlp.gate.balance_bias[3] = 10.0
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "ours")
    with pytest.raises(CheckpointError, match="balance_bias: drop"):
        run(tmp_path / "ours", tmp_path / "no", architecture="qwen3_moe")
    stock, metrics = run(
        tmp_path / "ours", tmp_path / "yes", architecture="qwen3_moe", balance_bias="drop"
    )
    assert metrics["dropped_bias_max_logit_change"] > 0
    # Expert 3 was picked by every token; without its bias some pick it still.
    assert 0.2 < metrics["dropped_bias_picks_changed_ratio"] <= 0.5
    for layer in moe.model.layers:
        layer.mlp.gate.balance_bias.zero_()
    ids = torch.randint(4, moe.config.vocab_size, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(stock)(ids).logits, moe(ids).logits, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("architecture", ["qwen3_moe", "limbeck_moe"])
def test_only_mixtures_convert(architecture, dense, tokenizer, tmp_path):
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "dense")
    with pytest.raises(CheckpointError, match="'qwen3' model does not convert"):
        run(tmp_path / "dense", tmp_path / "there", architecture=architecture)


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_other_logits_are_refused(wrong, moe, tokenizer, tmp_path, monkeypatch):
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "ours")

    def damage(model, *, architecture):
        converted = convert_model(model, architecture=architecture)
        with torch.no_grad():
            converted.model.norm.weight[0] = wrong
        return converted

    convert_model = convert.convert
    monkeypatch.setattr(convert, "convert", damage)
    with pytest.raises(ParityError, match="logits differ"):
        run(tmp_path / "ours", tmp_path / "there", architecture="qwen3_moe")
