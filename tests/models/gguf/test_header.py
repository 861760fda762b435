"""What a GGUF file says of itself, read without the package `gguf`."""

from limbeck.models.gguf.header import read_control_tokens
from tests.support.gguf_files import write_llama


def test_control_tokens_are_those_that_are_no_text(tmp_path):
    write_llama(tmp_path / "tiny.gguf")
    assert read_control_tokens(tmp_path / "tiny.gguf") == ("<s>", "</s>")
