"""Aligning images with texts: the loss is a plain sum over pairs, the text model stays still."""

import copy
import math

import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.batch import IGNORED, Batch, Images
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.config import EncoderConfig
from limbeck.models.forward import KeptForward
from limbeck.models.vision.builder import add_encoder
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Contrastive
from limbeck.objectives.contrastive import distinct_texts, pairwise_sigmoid_loss
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randn(5, 3, generator=generator),
        "texts": torch.randn(2, 3, generator=generator),
        "matches": torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=torch.bool),
        "log_scale": torch.tensor(1.2),
        "bias": torch.tensor(-0.7),
    }


def test_it_is_a_plain_sum_over_pairs(pairs):
    total = 0.0
    for image, row in zip(pairs["images"].tolist(), pairs["matches"].tolist(), strict=True):
        for text, match in zip(pairs["texts"].tolist(), row, strict=True):
            dot = sum(x * y for x, y in zip(image, text, strict=True))
            cosine = dot / math.hypot(*image) / math.hypot(*text)
            logit = math.exp(1.2) * cosine - 0.7
            total += math.log1p(math.exp(-logit if match else logit))
    assert pairwise_sigmoid_loss(**pairs).item() == pytest.approx(total, rel=1e-5)


def test_images_and_texts_may_change_places(pairs):
    swapped = pairs | {
        "images": pairs["texts"],
        "texts": pairs["images"],
        "matches": pairs["matches"].T,
    }
    torch.testing.assert_close(pairwise_sigmoid_loss(**swapped), pairwise_sigmoid_loss(**pairs))


def test_perfect_pairs_cost_nothing(pairs):
    perfect = {
        "images": torch.tensor([[1.0, 0], [-1, 0], [1, 0]]),
        "texts": torch.tensor([[1.0, 0], [-1, 0]]),
        "matches": torch.tensor([[True, False], [False, True], [True, False]]),
        "log_scale": torch.tensor(math.log(50.0)),
        "bias": torch.tensor(0.0),
    }
    assert pairwise_sigmoid_loss(**perfect).item() < 1e-6


def test_equal_answers_are_one_text():
    labels = torch.tensor([[-100, 3, 4], [-100, 5, -100], [3, 4, -100], [-100, -100, 5]])
    tokens, lengths, owners = distinct_texts(labels, pad=0)
    assert tokens.tolist() == [[3, 4], [5, 0]]
    assert lengths.tolist() == [2, 1]
    assert owners.tolist() == [0, 1, 0, 1]


@pytest.fixture
def seeing(tmp_path, moe_config):
    words = train_tokenizer(
        ["正常或者肺炎"],
        folder=tmp_path,
        config=TokenizerConfig(min_count=1),
        special=(IMAGE_TOKEN,),
    )
    encoder = EncoderConfig(
        image_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    text = moe_config.build(tokenizer=words, seed=0)
    return add_encoder(text, tokenizer=words, config=encoder, seed=0)


@pytest.fixture
def batch(seeing):
    ids = torch.tensor([[seeing.config.image_token_id, 8, 9], [seeing.config.image_token_id, 7, 6]])
    labels = ids.clone()
    labels[:, 0] = IGNORED
    images = Images(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    return Batch(ids, labels, torch.arange(2), torch.ones(2, 3, dtype=torch.bool), images)


def test_the_language_model_is_frozen(seeing, batch):
    objective = Contrastive(kind="contrastive", bias=0).build(ObjectiveContext(seeing))
    loss = objective(KeptForward(seeing), batch)
    assert loss.count == 2
    loss.sum.backward()
    assert all(item.grad is None for item in seeing.language_model.parameters())
    assert all(item.grad is not None for item in seeing.projector.parameters())
    assert seeing.vision.embeddings.patch_embedding.weight.grad.abs().sum() > 0
    assert {name for name, item in objective.named_parameters() if item.grad is not None} == {
        "log_scale",
        "bias",
        "map.weight",
    }


def test_text_alone_counts_nothing(seeing, batch):
    objective = Contrastive(kind="contrastive").build(ObjectiveContext(seeing))
    text = Batch(batch.input_ids, batch.labels, batch.record_ids, batch.tokens)
    assert objective(KeptForward(seeing), text).count == 0


def test_a_model_without_vision_is_refused(dense):
    with pytest.raises(CheckpointError, match="extend"):
        Contrastive(kind="contrastive").build(ObjectiveContext(dense))


def align(seeing, batch, state, *, stop=None):
    def source(step):
        if step == stop:
            raise KeyboardInterrupt
        return [batch]

    fit(
        seeing,
        batches=source,
        state=state,
        title="test",
        objective=Contrastive(kind="contrastive", bias=0).build(ObjectiveContext(seeing)),
        config=TrainingConfig(max_steps=4, learning_rate=0.01, save_interval_seconds=0.0),
    )
    return torch.cat([item.flatten() for item in seeing.state_dict().values()])


def test_a_resumed_alignment_equals_the_uninterrupted_one(seeing, batch, tmp_path):
    broken, resumed = copy.deepcopy(seeing), copy.deepcopy(seeing)
    expected = align(seeing, batch, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        align(broken, batch, tmp_path / "b", stop=2)
    assert torch.equal(align(resumed, batch, tmp_path / "b"), expected)
