"""A teacher runs in the type it is stored in, and where it does not fit it is spread."""

import gc
from pathlib import Path

import pytest
import torch

from limbeck.distillation.teachers import offloading
from limbeck.distillation.teachers.offloading import is_spread, load_frozen, move_unless_offloaded
from limbeck.models.batch import pad_rows
from limbeck.models.checkpoints import load_model
from limbeck.models.forward import KeptForward
from limbeck.models.logit_parity import random_tokens
from tests.support.published_checkpoints import TEACHERS, make_checkpoint


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("frozen")
    for name, build in TEACHERS.items():
        make_checkpoint(root / name, build=build)
    return root


@pytest.fixture
def little_memory(monkeypatch):
    """Less than half of any of these teachers."""
    monkeypatch.setattr(offloading, "free_bytes", lambda: 60_000)


def run_model(model, **options):
    ids = random_tokens(vocab=500, num_prompts=3, num_tokens=12)
    batch = pad_rows(list(ids.numpy()), starts=[4, 1, 9], pad=0, record_ids=[0, 1, 2])
    with torch.no_grad():
        return KeptForward(model)(batch, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stored_type_is_kept(dtype, dense, tokenizer, tmp_path):
    dense.to(dtype).save_pretrained(tmp_path)
    model = load_frozen(tmp_path)
    assert model.dtype == dtype and not is_spread(model)
    assert not any(item.requires_grad for item in model.parameters())
    move_unless_offloaded(model, torch.device("meta"))
    assert model.device.type == "meta"


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_larger_than_the_memory_gives_the_same(name, checkpoints, little_memory, caplog):
    spread = load_frozen(checkpoints / name)
    assert "GB of free memory" in caplog.text
    assert is_spread(spread)
    move_unless_offloaded(KeptForward(spread), torch.device("meta"))
    found = run_model(spread, layers=[1, 2], form="factored")
    # States and head would have to lie on one device.
    assert found.factored is None
    whole = load_model(checkpoints / name, dtype="auto")
    expected = run_model(whole, layers=[1, 2])
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.hidden, expected.hidden)


def test_what_lies_on_the_disk_goes_with_the_model(
    checkpoints, little_memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(offloading.tempfile, "tempdir", str(tmp_path))
    model = load_frozen(checkpoints / "mixtral")
    assert list(Path(tmp_path).iterdir())
    del model
    gc.collect()
    assert not list(Path(tmp_path).iterdir())
