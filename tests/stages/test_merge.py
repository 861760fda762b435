"""Adapters that peft saved become part of the model that they belong to, or are refused."""

import json

import peft
import pytest
import torch

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError, RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.models.checkpoints import build_without_weights, load_model, open_config
from limbeck.models.saved_adapters import describe_merged
from limbeck.models.tokenizers import load_tokenizer
from limbeck.pipeline.check import check
from limbeck.stages import merge
from tests.support.artifacts import make_artifact
from tests.support.families import make_family
from tests.support.family_stages import write_data

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")
PROBE = torch.arange(3, 200).reshape(1, -1)


def add_adapter(base, folder, *, targets="all-linear", num_added=0, **fields):
    """An adapter of random weights, perhaps with tokens added; the adapted model's logits."""
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **fields
    )
    model = load_model(base)
    if num_added:
        tokenizer = load_tokenizer(base)
        tokenizer.add_tokens([f"<word {number}>" for number in range(num_added)])
        tokenizer.save_pretrained(folder)
        model.resize_token_embeddings(model.config.vocab_size + num_added)
    model = peft.get_peft_model(model, settings).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(input_ids=PROBE).logits


def run(base, adapter, tmp_path):
    config = merge.Config(stage="merge", adapter=adapter, checkpoint="base")
    work = Work(
        "merged",
        tmp_path / "merged",
        tmp_path,
        {"checkpoint": (make_artifact(base, "checkpoint"),)},
    )
    work.folder.mkdir()
    return merge.run(config, work=work), work.folder


@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3", "Phi-3", "Qwen2"])
@pytest.mark.parametrize("targets", ["all-linear", ["o_proj", "down_proj"]])
def test_the_merged_model_predicts_what_the_adapted_one_does(family, targets, tmp_path):
    base = make_family(tmp_path / "base", name=family)
    expected = add_adapter(base, tmp_path / "adapter", targets=targets)
    metrics, folder = run(base, tmp_path / "adapter", tmp_path)
    assert metrics["max_logit_difference"] < 1e-4 * metrics["max_logit"]
    with torch.no_grad():
        merged, plain = (load_model(item)(input_ids=PROBE).logits for item in (folder, base))
    assert torch.allclose(merged, expected, atol=1e-4 * expected.abs().max().item())
    assert (merged - plain).abs().max() > 0.1
    assert load_tokenizer(folder).get_vocab() == load_tokenizer(base).get_vocab()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("targets", "fields"),
    [
        (["q_proj", "lm_head"], {}),
        (["embed_tokens"], {}),
        (["embed_tokens", "lm_head"], {"ensure_weight_tying": True}),
        (["q_proj"], {"modules_to_save": ["embed_tokens", "lm_head"]}),
        (["q_proj"], {"num_added": 3}),
        (["embed_tokens", "lm_head"], {"num_added": 3}),
        (["q_proj"], {"trainable_token_indices": [5, 6]}),
        (["q_proj"], {"use_dora": True}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_adapted_heads_and_embeddings_stay_apart(targets, fields, tied, tmp_path, look):
    """Also where the model's head was its embeddings, and where its vocabulary was shorter."""
    base = make_family(tmp_path / "tied", name="Llama 3", tie_word_embeddings=tied)
    expected = add_adapter(base, tmp_path / "adapter", targets=targets, **fields)
    assert not look(tmp_path / "adapter", base)
    metrics, folder = run(base, tmp_path / "adapter", tmp_path)
    assert metrics["max_logit_difference"] < 1e-4 * metrics["max_logit"]
    with torch.no_grad():
        merged = load_model(folder)(input_ids=PROBE).logits
    assert torch.allclose(merged, expected, atol=1e-4 * expected.abs().max().item())
    assert ("<word 2>" in load_tokenizer(folder).get_vocab()) == ("num_added" in fields)
    layers = build_without_weights(open_config(base))
    described = describe_merged(layers, folder=tmp_path / "adapter")
    made = open_config(folder)
    assert described.vocab_size == made.vocab_size
    assert described.tie_word_embeddings == made.tie_word_embeddings


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_check_knows_the_tokens_that_an_adapter_adds(base, tmp_path):
    """A corpus read with the adapter's tokenizer is what the merged model reads, and no other."""
    add_adapter(base, tmp_path / "adapter", targets=["q_proj"], num_added=3)
    data, path = write_data(tmp_path), tmp_path / "recipe.yaml"

    def find_faults(tokenizer):
        path.write_text(
            f"c: {{stage: prepare, tokenizer: '{tokenizer}', "
            f"sources: [{{kind: jsonl, path: '{data}'}}]}}\n"
            f"m: {{stage: merge, adapter: '{tmp_path / 'adapter'}', checkpoint: '{base}'}}\n"
            "r: {stage: record, corpus: c, teacher: m, batching: {max_length: 64}}\n"
        )
        try:
            check(load_recipe(path))
        except RecipeError as error:
            return [fault.message for fault in error.faults]
        return []

    assert not find_faults(tmp_path / "adapter")
    (fault,) = find_faults(base)
    assert "tokenizer" in fault


@pytest.fixture
def base(tmp_path):
    return make_family(tmp_path / "base", name="Qwen3")


@pytest.fixture
def look(tmp_path, base):
    """The faults that `check` finds in a recipe that merges an adapter."""

    def look(adapter, checkpoint=base):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"m: {{stage: merge, adapter: '{adapter}', checkpoint: '{checkpoint}'}}")
        try:
            check(load_recipe(path))
        except RecipeError as error:
            return [fault.message for fault in error.faults]
        return []

    return look


def spoil(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "damaged"),
        (lambda folder: spoil(folder, peft_type="IA3"), "type 'IA3'; only LORA"),
        (
            lambda folder: spoil(folder, alora_invocation_tokens=[5]),
            "from a phrase on only (aLoRA)",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 40),
            "adapter_model.safetensors: damaged",
        ),
    ],
)
def test_check_refuses_what_is_no_adapter(base, tmp_path, look, damage, message):
    add_adapter(base, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    faults = look(tmp_path / "adapter")
    assert message in faults[0] if message else not faults


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys")
def test_an_adapter_of_stacked_experts_belongs_to_its_model(tmp_path, look):
    """peft puts one adapter around the other where a module has two weights."""
    base = make_family(tmp_path / "mixture", name="Mixtral")
    add_adapter(base, tmp_path / "adapter")
    assert not look(tmp_path / "adapter", base)


@pytest.mark.parametrize(("family", "message"), [("Phi-3", "no linear layer"), ("Llama 3", "")])
def test_an_adapter_of_another_model_is_refused_before_anything_runs(
    base, tmp_path, look, family, message
):
    add_adapter(base, tmp_path / "adapter")
    other = make_family(tmp_path / "other", name=family)
    faults = look(tmp_path / "adapter", other)
    assert all("belongs to another model" in fault for fault in faults)
    assert message in faults[0] if message else not faults
    if message:
        with pytest.raises(CheckpointError, match=message):
            run(other, tmp_path / "adapter", tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_new_tokens_whose_rows_peft_left_out_are_refused(tmp_path, look):
    base = make_family(tmp_path / "base", name="Llama 3", tie_word_embeddings=False)
    add_adapter(base, tmp_path / "adapter", targets=["q_proj", "lm_head"], num_added=3)
    (fault,) = look(tmp_path / "adapter", base)
    assert "made for 579 tokens, but 'model.embed_tokens' of so many is not in it" in fault
    tied = make_family(tmp_path / "tied", name="Llama 3", tie_word_embeddings=True)
    expected = add_adapter(tied, tmp_path / "whole", targets=["q_proj", "lm_head"], num_added=3)
    assert not look(tmp_path / "whole", tied)
    _, folder = run(tied, tmp_path / "whole", tmp_path)
    with torch.no_grad():
        merged = load_model(folder)(input_ids=PROBE).logits
    assert torch.allclose(merged, expected, atol=1e-4 * expected.abs().max().item())


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
@pytest.mark.filterwarnings("ignore:Adapter 'default'. 2 LoRA tensor")
def test_a_bias_that_has_no_place_is_refused_before_anything_runs(base, tmp_path, look):
    add_adapter(base, tmp_path / "adapter", targets=["q_proj"], lora_bias=True)
    (fault,) = look(tmp_path / "adapter")
    assert "lora_bias gives 'model.layers.0.self_attn.q_proj' a bias" in fault


def test_other_widths_are_named(base, tmp_path, look):
    other = make_family(tmp_path / "other", name="Qwen2-MoE")
    add_adapter(other, tmp_path / "adapter", targets=["o_proj", "shared_expert.down_proj"])
    (fault,) = look(tmp_path / "adapter")
    assert "no linear layer 'model.layers.0.mlp.shared_expert.down_proj'" in fault
