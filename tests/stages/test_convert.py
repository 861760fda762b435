"""The stage: a mixture to stock transformers and back, with equal logits or a named refusal."""

import pytest
import torch
from making import make_artifact
from transformers import AutoModelForCausalLM, Qwen3MoeForCausalLM

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.loading import load_model, save_checkpoint
from limbeck.models.moe import LimbeckMoeForCausalLM
from limbeck.runtimes import open_answerer
from limbeck.stages import convert


def run(checkpoint, target, *, architecture):
    for folder in (target, target / "artifact"):
        folder.mkdir()
    inputs = {"checkpoint": (make_artifact(checkpoint, "checkpoint"),)}
    config = convert.Config(stage="convert", checkpoint="it", architecture=architecture)
    work = Work("converted", target / "artifact", target / "state", inputs)
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
    with pytest.raises(ParityError, match="differ by"):
        run(tmp_path / "ours", tmp_path / "there", architecture="qwen3_moe")
