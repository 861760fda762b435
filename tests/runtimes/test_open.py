"""How many threads a model is opened with: the caller's number, or one by its work."""

import onnxruntime
import pytest
import torch

from limbeck import runtimes
from limbeck.env import threads
from limbeck.runtimes import open_answerer, open_runtime
from limbeck.runtimes.transformers import count_active
from tests.support.tiny_checkpoints import make_checkpoint


@pytest.fixture(params=["checkpoint", "bundle"])
def folder(request, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", head_dim=16)
    open_runtime("onnx").write(tmp_path / "checkpoint", tmp_path / "bundle")
    return tmp_path / request.param


@pytest.fixture(autouse=True)
def three_free_cores(monkeypatch):
    monkeypatch.setattr(runtimes, "count_free_cores", lambda: 3)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_tiny_model_has_one_thread_and_a_number_wins(folder):
    assert open_answerer(folder, num_threads="auto").num_threads() == 1
    assert open_answerer(folder, num_threads=2).num_threads() == 2


def test_rows_decoded_together_are_work(folder, monkeypatch):
    active = open_answerer(folder, num_threads=1).size().active_parameters
    monkeypatch.setattr(threads, "SHARED_FROM", 8 * active)
    found = [
        open_answerer(folder, num_threads="auto", num_rows=count).num_threads()
        for count in (7, 8, 12, 64, 1000)
    ]
    assert found == [1, 2, 3, 3, 3]


def test_the_number_reaches_the_library(folder, monkeypatch):
    monkeypatch.setattr(threads, "SHARED_FROM", 1)
    options = []
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, given, **rest: options.append(given) or session(path, given, **rest),
    )
    answerer = open_answerer(folder, num_threads="auto")
    answerer.answer(["药"], max_new_tokens=1)
    reached = options[0].intra_op_num_threads if options else torch.get_num_threads()
    assert reached == answerer.num_threads() == 3


@pytest.mark.parametrize("kind", ["qwen3", "moe"])
def test_active_parameters_are_counted_without_weights(tmp_path, kind):
    make_checkpoint(tmp_path, kind)
    size = open_answerer(tmp_path, num_threads=1).size()
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert count_active(tmp_path) == size.active_parameters
