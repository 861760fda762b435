import pytest
import torch

from limbeck.models.checkpoints import save_checkpoint
from limbeck.runtimes import open_runtime
from tests.support.tiny_checkpoints import make_model, make_tokenizer


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A small random model that writes characters and seldom ends, as an ONNX bundle."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = make_tokenizer(folder / "tokenizer")
    model = make_model("qwen3", tokenizer, max_position_embeddings=4096)
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    is_text = torch.tensor([text.isprintable() and "\ufffd" not in text for text in texts])
    is_text[tokenizer.all_special_ids] = False
    with torch.no_grad():
        model.get_input_embeddings().weight[~is_text] = 0
    save_checkpoint(model, tokenizer=tokenizer, folder=folder / "checkpoint")
    open_runtime("onnx").write(folder / "checkpoint", folder / "bundle")
    return folder / "bundle"
