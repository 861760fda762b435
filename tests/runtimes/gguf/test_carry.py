"""llama.cpp cuts text as each tokenizer does, or the tokenizer is refused with the text."""

import json

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from limbeck.contracts.errors import CheckpointError
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.runtimes.gguf.carry import carry, list_names, make_texts
from limbeck.runtimes.gguf.vocabulary import SPACE, TokenType, describe_vocabulary
from tests.support.byte_level_tokenizer import pack_lines, train_byte_level
from tests.support.tiny_checkpoints import make_tokenizer

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")


def split(*patterns):
    return pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(item), behavior="isolated") for item in patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


WORDS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "qwen2": split(QWEN2),
    "llama-bpe": split(LLAMA3),
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}


@pytest.fixture(scope="module")
def trained():
    """A byte-level tokenizer that has learnt words, numbers and spaces of many forms."""
    lines = pack_lines()[:1500]
    more = ["don't DON'T we'll 12345 1234 2026", "    if x == 10:\r\n\n\n        y += '' # !!!"]
    tokenizer = train_byte_level([*lines, *more * 200], num_tokens=1200)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def describe(tokenizer, **changes):
    fields = {"num_rows": len(tokenizer) + 3, "end_ids": (tokenizer.eos_token_id,)} | changes
    return describe_vocabulary(tokenizer, place="model", **fields)


def write(vocabulary, path):
    """A vocabulary in a file of a model without tensors."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for field in ("context_length", "embedding_length", "block_count", "feed_forward_length"):
        getattr(writer, f"add_{field}")(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def carried(tokenizer, **changes):
    vocabulary = describe(tokenizer, **changes)
    backend = tokenizer.backend_tokenizer
    return carry(vocabulary, tokenizer=backend, write=write, place="model")


@pytest.mark.parametrize("name", WORDS)
def test_the_way_to_find_words_is_found_by_what_it_does(name, trained):
    backend = Tokenizer.from_str(trained.backend_tokenizer.to_str())
    backend.pre_tokenizer = WORDS[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokenizer.chat_template = trained.chat_template
    found = carried(tokenizer)
    assert found.vocabulary.pre_tokenizer == name
    assert found.num_texts > 800
    assert list_names(backend)[0] == name


def test_characters_and_bytes_become_what_llama_cpp_merges_by_score(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    found = carried(tokenizer)
    assert found.vocabulary.model == "llama" and found.vocabulary.normal_form == "NFC"
    types = found.vocabulary.types
    assert types[0] == TokenType.CONTROL and types.count(TokenType.BYTE) == 256
    assert types[-3:] == (TokenType.UNUSED,) * 3
    assert found.num_texts > 800


def test_a_space_may_be_a_byte(tmp_path):
    config = TokenizerConfig(min_count=1, num_merges=0)
    tokenizer = train_tokenizer(["高血压", "a"], folder=tmp_path, config=config)
    found = carried(tokenizer).vocabulary
    index = tokenizer.convert_tokens_to_ids("<0x20>")
    assert (found.tokens[index], found.types[index]) == (SPACE, TokenType.NORMAL)


def test_a_tokenizer_that_differs_is_refused_with_the_text(trained):
    backend = Tokenizer.from_str(trained.backend_tokenizer.to_str())
    backend.pre_tokenizer = split(r"[a-c]+|[^a-c]+")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokenizer.chat_template = trained.chat_template
    message = r"cannot be carried into a GGUF file exactly: '.*' is \[.*in llama\.cpp \["
    with pytest.raises(CheckpointError, match=message):
        carried(tokenizer)


def test_other_kinds_of_tokenizers_are_refused():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram([("a", 0.0), ("b", -1.0)])), eos_token="a"
    )
    with pytest.raises(CheckpointError, match="of kind Unigram cannot be carried"):
        describe(tokenizer)


def test_a_model_with_too_few_embeddings_is_refused(trained):
    with pytest.raises(CheckpointError, match=r"a token \d+, the model 10 embeddings"):
        describe(trained, num_rows=10)


def test_an_end_that_llama_cpp_would_miss_is_stated(trained):
    ends = (trained.convert_tokens_to_ids("<|im_end|>"), trained.eos_token_id)
    vocabulary = describe(trained, end_ids=ends)
    assert vocabulary.special["eot"] == ends[0] and vocabulary.special["eos"] == ends[1]


def test_a_template_that_asks_for_a_start_reports_that_there_is_none(trained):
    vocabulary = describe(trained)
    assert vocabulary.template == trained.chat_template
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer, eos_token="</s>"
    )
    tokenizer.chat_template = "{{ bos_token }}x"
    assert describe(tokenizer).template == "{% set bos_token = '' %}{{ bos_token }}x"


def test_texts_are_the_same_each_time(trained):
    vocabulary = describe(trained)
    first, again = (make_texts(vocabulary, tokenizer=trained.backend_tokenizer) for _ in range(2))
    assert first == again
    assert any("<|im_start|>" in text for text in first)
    assert json.dumps(first)
