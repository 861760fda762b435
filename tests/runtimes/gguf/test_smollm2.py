"""A published file, unpacked and written again, is the same file tensor for tensor."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from limbeck.models.gguf.header import read_header
from limbeck.models.tokenizers import load_tokenizer
from limbeck.runtimes.bundle import read_bundle
from limbeck.runtimes.gguf.carry import compare_texts, make_texts
from limbeck.runtimes.gguf.model import GgufFile
from limbeck.runtimes.gguf.runtime import MODEL, GgufRuntime
from limbeck.runtimes.gguf.vocabulary import describe_vocabulary
from tests.support.gguf_files import fetch_smollm2, unpack_smollm2


def read_tensors(path):
    data = np.memmap(path, np.uint8, mode="r")
    return {
        item.name: (item.type, data[item.offset :][: item.num_bytes])
        for item in read_header(path).tensors
    }


@pytest.mark.slow
def test_smollm2_comes_back_bit_for_bit(tmp_path):
    published, (_, checkpoint) = fetch_smollm2(), unpack_smollm2()
    GgufRuntime().write(checkpoint, tmp_path / "bundle", weights="Q4_1")
    assert read_bundle(tmp_path / "bundle").runtime_settings["pre_tokenizer"] == "smollm"
    ours, theirs = read_tensors(tmp_path / "bundle" / MODEL), read_tensors(published)
    assert ours.keys() == theirs.keys()
    for name, (kind, data) in ours.items():
        assert kind == theirs[name][0], name
        assert np.array_equal(data, theirs[name][1]), name
    file = GgufFile(published, vocab_only=True)
    vocabulary = describe_vocabulary(
        load_tokenizer(checkpoint), num_rows=file.vocab_size, end_ids=(), place="model"
    )
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    texts = make_texts(vocabulary, tokenizer=tokenizer, num=500)
    assert len(texts) > 1_000
    assert compare_texts(tokenizer, file, texts=texts) is None
