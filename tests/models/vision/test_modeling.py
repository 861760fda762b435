"""A model that sees: text stays what it was, images stand where they belong, caches agree."""

import pytest
import torch
from torch.nn import functional

from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.config import EncoderConfig, VisionModel
from limbeck.models.forward import KeptForward
from limbeck.models.vision.builder import add_encoder
from limbeck.models.vision.configuration import image_format
from limbeck.models.vision.modeling import Projector, merge_patches
from limbeck.sizing.parameters import size_model
from tests.support.token_batch import token_batch

ENCODER = EncoderConfig(
    image_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer that knows images."""
    return train_tokenizer(
        ["看图说话，正常或者肺炎。"],
        folder=tmp_path_factory.mktemp("words"),
        config=TokenizerConfig(min_count=1),
        special=(IMAGE_TOKEN,),
    )


@pytest.fixture(params=["moe", "dense"])
def text(request, words, moe_config, dense_config):
    config = {"moe": moe_config, "dense": dense_config}[request.param]
    return config.build(tokenizer=words, seed=0).eval()


@pytest.fixture
def seeing(text, words):
    return add_encoder(text, tokenizer=words, config=ENCODER, seed=0)


@pytest.fixture
def prompts(words):
    """Two prompts of one length with an image each, and the images."""
    image = IMAGE_TOKEN * 4
    ids = torch.tensor(
        words([f"看{image}图说话", f"{image}正常图说"], add_special_tokens=False)["input_ids"]
    )
    return ids, torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_text_is_answered_as_before_to_the_bit_and_at_no_cost(text, words, prompts):
    ids, _ = prompts
    before = text(ids).logits
    size = size_model(text.config, context_tokens=8)
    seeing = add_encoder(text, tokenizer=words, config=ENCODER, seed=0)
    ran = []
    for part in (seeing.vision, seeing.projector):
        part.register_forward_hook(lambda *_: ran.append(1))
    assert torch.equal(seeing(ids).logits, before)
    batch = token_batch(ids)
    kept = KeptForward(seeing)(batch).logits
    assert torch.equal(kept, KeptForward(text)(batch).logits)
    assert not ran
    found = size_model(seeing.config, context_tokens=8)
    assert found.forward_flops == size.forward_flops
    assert found.active_parameters == size.active_parameters
    assert found.skipped_ratio == size.skipped_ratio
    assert found.parameters == sum(item.numel() for item in seeing.parameters())


@torch.no_grad()
def test_a_larger_vocabulary_keeps_the_old_logits(moe_config, tokenizer):
    text = moe_config.build(tokenizer=tokenizer, seed=0).eval()
    rows = len(tokenizer)
    ids = torch.arange(12).view(2, 6)
    before = text(ids).logits
    grown = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    seeing = add_encoder(text, tokenizer=grown, config=ENCODER, seed=0)
    assert seeing.config.image_token_id == rows == len(grown) - 1
    torch.testing.assert_close(seeing(ids).logits[..., :rows], before, rtol=0, atol=1e-6)
    assert seeing.get_output_embeddings().weight is seeing.get_input_embeddings().weight


def test_text_alone_gives_the_encoder_no_gradient(seeing, prompts):
    ids, _ = prompts
    KeptForward(seeing)(token_batch(ids)).logits.sum().backward()
    assert all(item.grad is None for item in seeing.vision.parameters())
    assert all(item.grad is None for item in seeing.projector.parameters())
    assert seeing.get_input_embeddings().weight.grad is not None


@torch.no_grad()
def test_image_tokens_hold_the_images_and_nothing_else_changes(seeing, prompts):
    ids, pixels = prompts
    images = seeing.encode_images(pixels)
    placed = seeing.place_images(ids, images)
    marked = ids == seeing.config.image_token_id
    assert marked.sum(dim=1).tolist() == [4, 4]
    assert torch.equal(placed[marked].view_as(images), images)
    assert torch.equal(placed[~marked], seeing.get_input_embeddings()(ids)[~marked])


@torch.no_grad()
def test_permuting_the_records_permutes_the_outputs(seeing, prompts):
    ids, pixels = prompts
    ids = ids[:1].repeat(2, 1)
    first = seeing(ids, pixel_values=pixels).logits
    second = seeing(ids, pixel_values=pixels.flip(0)).logits
    assert not torch.allclose(first[0], first[1], atol=1e-4)
    torch.testing.assert_close(second, first.flip(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_images_that_do_not_fit_their_tokens_are_refused(count, seeing, prompts):
    ids, _ = prompts
    with pytest.raises(DataError, match="hold 8 image tokens"):
        seeing(ids, pixel_values=torch.zeros(count, 1, 16, 16))


def test_merging_takes_neighbours_together():
    """A plain loop over the grid, rows first."""
    side, width, merge = 4, 3, 2
    patches = torch.randn(2, side * side, width)
    grid = patches.view(2, side, side, width)
    expected = [
        torch.cat([grid[:, row + down, column + right] for down in (0, 1) for right in (0, 1)], -1)
        for row in range(0, side, merge)
        for column in range(0, side, merge)
    ]
    assert torch.equal(merge_patches(patches, merge=merge), torch.stack(expected, dim=1))


def test_the_projector_is_norm_and_two_linear_layers():
    projector = Projector(width=3, merge=2, hidden=5)
    patches = torch.randn(2, 16, 3)
    merged = merge_patches(patches, merge=2)
    centred = merged - merged.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    up = functional.gelu(normed @ projector.up.weight.T + projector.up.bias)
    expected = up @ projector.down.weight.T + projector.down.bias
    torch.testing.assert_close(projector(patches), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_saved_vision_model_computes_the_same(seeing, words, prompts, tmp_path):
    ids, pixels = prompts
    save_checkpoint(seeing, tokenizer=words, folder=tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(
        loaded(ids, pixel_values=pixels).logits, seeing(ids, pixel_values=pixels).logits
    )
    assert image_format(loaded.config) == image_format(seeing.config)
    assert (tmp_path / "preprocessor_config.json").is_file()


@torch.no_grad()
def test_decoding_with_the_cache_equals_the_whole_forward_pass(seeing, prompts):
    ids, pixels = prompts
    made = seeing.generate(
        ids,
        pixel_values=pixels,
        max_new_tokens=4,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        suppress_tokens=[seeing.config.image_token_id],
    )
    whole = seeing(made.sequences[:, :-1], pixel_values=pixels).logits[:, ids.shape[1] - 1 :]
    torch.testing.assert_close(torch.stack(made.logits, 1), whole, rtol=1e-4, atol=1e-5)


def test_kept_positions_are_those_of_the_model(seeing, prompts):
    ids, pixels = prompts
    keep = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    kept = KeptForward(seeing)(token_batch(ids, pixels=pixels), keep=keep, layers=(1, 2))
    output = seeing(ids, pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(kept.logits, output.logits[keep])
    torch.testing.assert_close(kept.hidden[1], output.hidden_states[2][keep])
    assert kept.images.shape == (2, 16)


def test_a_vision_model_is_not_extended_again(seeing, words):
    with pytest.raises(CheckpointError, match="already"):
        add_encoder(seeing, tokenizer=words, config=ENCODER, seed=0)


def test_a_fresh_model_needs_a_token_for_images(dense_config, tokenizer):
    config = VisionModel(kind="vision", text=dense_config, encoder=ENCODER)
    with pytest.raises(CheckpointError, match="no images"):
        config.build(tokenizer=tokenizer, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"image_size": 20}, "multiple of 8"), ({"num_attention_heads": 3}, "num_attention_heads")],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**changes)
