"""A tokenizer that lies alone is opened without torch, as transformers would open it."""

import json

import pytest
from transformers import AutoTokenizer

from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer
from tests.support.byte_level_tokenizer import pack_lines, train_byte_level


@pytest.mark.parametrize("kind", ["characters", "byte-level", "as an older version saved it"])
def test_alone_it_is_what_transformers_opens(kind, corpus, tmp_path):
    folder = corpus / "tokenizer"
    if kind != "characters":
        folder = tmp_path / "own"
        train_byte_level(pack_lines()[:200], num_tokens=400).save_pretrained(folder)
    if kind == "as an older version saved it":
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(settings))
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert identify(ours).find_difference(identify(theirs)) == ""
    text = "胸口疼，38.5°C <|end|> hello\n世界"
    assert ours(text).input_ids == theirs(text).input_ids
    assert ours.decode(ours(text).input_ids) == theirs.decode(theirs(text).input_ids)
    assert ours.special_tokens_map.items() >= theirs.special_tokens_map.items()
