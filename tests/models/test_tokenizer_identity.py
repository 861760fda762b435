"""Tokenizers are compared by what they do."""

import json

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from limbeck.models.tokenizer_identity import identify
from tests.support.byte_level_tokenizer import pack_lines, train_byte_level


@pytest.fixture
def folder(tmp_path):
    train_byte_level(pack_lines()[:200], num_tokens=400).save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def test_saving_again_changes_nothing(folder, tmp_path):
    """Publishers' files are laid out, ordered and commented in their own ways."""
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]
    value["model"]["vocab"] = dict(reversed(value["model"]["vocab"].items()))
    value["truncation"] = {
        "direction": "Right",
        "max_length": 512,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path.write_text(json.dumps(value, indent=4))
    first = AutoTokenizer.from_pretrained(folder)
    first.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() != path.read_bytes()
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert identify(first) == identify(again)
    assert identify(first).fingerprint == identify(again).fingerprint
    assert identify(first).find_difference(identify(again)) == ""


def add_token(tokenizer):
    tokenizer.add_tokens(["hello"])


def add_special(tokenizer):
    tokenizer.add_tokens([AddedToken("</s>", special=False, normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["a"]})


def fold_case(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def split_digits(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    )


@pytest.mark.parametrize("change", [add_token, add_special, fold_case, split_digits])
def test_what_changes_tokens_is_named(change, folder):
    plain, changed = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
    change(changed)
    assert identify(plain).find_difference(identify(changed))
    assert identify(changed).find_difference(identify(plain))
    assert identify(plain).fingerprint != identify(changed).fingerprint


def test_other_merges_are_another_tokenizer(folder):
    plain = identify(AutoTokenizer.from_pretrained(folder))
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["model"]["merges"].reverse()
    path.write_text(json.dumps(value))
    assert "merges" in plain.find_difference(identify(AutoTokenizer.from_pretrained(folder)))
