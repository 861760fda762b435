"""The token cache: what it gives equals a tokenisation anew, and no stale entry is read."""

import multiprocessing
import shutil
from dataclasses import fields

import numpy as np
import pytest
from filelock import FileLock

from limbeck.contracts.artifacts import CACHE, hash_path
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Record, read_records, write_jsonl
from limbeck.data.loading import token_cache
from limbeck.data.loading.batches import Batches, BatchingConfig
from limbeck.data.loading.token_cache import TokenCache, hash_inputs
from limbeck.data.loading.tokenized import tokenize_split
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.image_processing import ImageFormat


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus of its own, so that its cache is too."""
    return shutil.copytree(corpus, tmp_path / "store" / "corpus")


@pytest.fixture
def split(copy):
    return copy / "records" / "train.jsonl"


@pytest.fixture
def own_tokenizer(copy):
    """One that a test may change."""
    return load_tokenizer(copy / "tokenizer")


@pytest.fixture
def runs(monkeypatch):
    """One item for each tokenisation of a split."""
    found = []

    def tokenize(path, **options):
        found.append(path)
        return tokenize_split(path, **options)

    monkeypatch.setattr(token_cache, "tokenize_split", tokenize)
    return found


def entries(copy):
    return sorted(path for path in (copy.parent / CACHE / "tokens").iterdir() if path.is_dir())


def assert_equal(left, right):
    for field in fields(left):
        one, other = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        elif field.name == "flags":
            assert_equal(one, other)
        else:
            assert one == other


@pytest.mark.parametrize("answers", ["answer", "rejected"])
def test_a_second_loading_equals_a_tokenisation(copy, split, tokenizer, runs, answers):
    records = [*read_records(split), Record("p", "问？", "好", "p", "x", rejected="坏")]
    write_jsonl(split, records)
    first, second = (
        TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer, answers=answers)
        for _ in range(2)
    )
    assert len(runs) == 1
    assert_equal(first, second)
    assert_equal(second, tokenize_split(split, tokenizer=tokenizer, answers=answers))
    assert isinstance(second.tokens.base, np.memmap)
    assert not second.tokens.flags.writeable


def test_images_and_an_empty_split(copy, split, tokenizer):
    shape = ImageFormat(side_pixels=8, channels=1, mean=0.5, std=0.5, num_tokens=2, token_id=3)
    write_jsonl(split, [Record("i", "图？", "是", "i", "x", images=("images/a.png",))])
    for image_format in (None, shape):
        for _ in range(2):
            found = TokenCache(Corpus(copy)).load(
                "train", tokenizer=tokenizer, image_format=image_format
            )
            assert_equal(
                found, tokenize_split(split, tokenizer=tokenizer, image_format=image_format)
            )
            assert found.images == {0: ("images/a.png",)}
    assert len(entries(copy)) == 2
    write_jsonl(split, [])
    for _ in range(2):
        assert not len(TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer).tokens)


def test_batches_of_a_cached_split(copy, tokenizer, runs):
    config = BatchingConfig(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    first, second = (Batches(Corpus(copy), tokenizer=tokenizer, config=config) for _ in range(2))
    short = Batches(Corpus(copy), tokenizer=tokenizer, config=config.replace(max_length=15))
    assert len(runs) == 1
    for step in range(3):
        for one, other in zip(first(step), second(step), strict=True):
            assert one.input_ids.equal(other.input_ids)
            assert one.labels.equal(other.labels)
            assert one.record_ids.equal(other.record_ids)
    assert max(batch.input_ids.shape[1] for batch in short(0)) <= 15


def test_content_hash_leaves_the_cache_out(copy, split, tokenizer):
    before = hash_path(copy)
    TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    assert hash_path(copy) == before


def test_what_changes_tokens_changes_the_key(copy, split, own_tokenizer, monkeypatch):
    def key(answers="answer", image_format=None):
        return hash_inputs(
            split, tokenizer=own_tokenizer, image_format=image_format, answers=answers
        )

    shape = ImageFormat(side_pixels=8, channels=1, mean=0.5, std=0.5, num_tokens=2, token_id=3)
    found = [key(), key("rejected"), key(image_format=shape)]
    own_tokenizer(["a", "bb"], padding=True, truncation=True, max_length=2)
    assert key() == found[0]
    own_tokenizer.chat_template = "{{ messages[0].content }}!"
    found.append(key())
    own_tokenizer.add_tokens(["高血压有"])
    found.append(key())
    own_tokenizer.eos_token = "高血压有"
    found.append(key())
    write_jsonl(split, list(read_records(split))[1:])
    found.append(key())
    monkeypatch.setattr(token_cache, "version", lambda name: f"{name} of tomorrow")
    found.append(key())
    assert None not in found
    assert len(set(found)) == len(found)


def test_a_changed_tokenizer_or_template_is_not_served_old_tokens(copy, split, own_tokenizer, runs):
    cache = TokenCache(Corpus(copy))
    cache.load("train", tokenizer=own_tokenizer)
    own_tokenizer.chat_template = "{{ messages[0].content }}!"
    assert_equal(
        cache.load("train", tokenizer=own_tokenizer), tokenize_split(split, tokenizer=own_tokenizer)
    )
    own_tokenizer.add_tokens(["高血压有"])
    assert_equal(
        cache.load("train", tokenizer=own_tokenizer), tokenize_split(split, tokenizer=own_tokenizer)
    )
    assert len(runs) == 3


def test_a_template_that_shows_the_time_is_not_cached(copy, split, own_tokenizer, runs):
    own_tokenizer.chat_template = "{{ strftime_now('%f') }}{{ messages[0].content }}"
    for _ in range(2):
        TokenCache(Corpus(copy)).load("train", tokenizer=own_tokenizer)
    assert len(runs) == 2
    assert not (copy.parent / CACHE).exists()


def truncate(entry):
    path = entry / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-8])


def flip(entry):
    path = entry / "tokens.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def lose(entry):
    (entry / "offsets.npy").unlink()


def cut_index(entry):
    (entry / "index.json").write_text("{")


def empty_index(entry):
    (entry / "index.json").write_text("{}")


@pytest.mark.parametrize("damage", [truncate, flip, lose, cut_index, empty_index])
def test_a_damaged_entry_is_made_again(copy, split, tokenizer, runs, damage):
    first = TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    damage(*entries(copy))
    assert_equal(TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer), first)
    assert len(runs) == 2
    assert_equal(TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer), first)
    assert len(runs) == 2


def test_what_a_kill_left_is_no_hindrance(copy, split, tokenizer, runs):
    TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    (entry,) = entries(copy)
    entry.rename(entry.with_name(f"{entry.name}.new"))
    (entry.with_name(f"{entry.name}.new") / "index.json").unlink()
    for _ in range(2):
        TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    assert len(runs) == 2
    assert entries(copy) == [entry]


@pytest.mark.parametrize("blocked", [CACHE, f"{CACHE}/tokens"])
def test_no_cache_where_the_place_cannot_be_written(copy, split, tokenizer, runs, blocked):
    place = copy.parent / blocked
    place.parent.mkdir(exist_ok=True)
    place.write_text("no folder")
    for _ in range(2):
        found = TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    assert_equal(found, tokenize_split(split, tokenizer=tokenizer))
    assert len(runs) == 2


def test_a_full_disk_leaves_nothing(copy, split, tokenizer, monkeypatch):
    def refuse(path, array):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", refuse)
    assert len(TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer).tokens)
    assert entries(copy) == []


def load_at_once(copy, log, results, *, ready):
    """What a process of its own does: it loads the split when all have begun."""

    def tokenize(path, **options):
        with log.open("a") as file:
            file.write("tokenised\n")
        return tokenize_split(path, **options)

    token_cache.tokenize_split = tokenize
    own_tokenizer = load_tokenizer(copy / "tokenizer")
    ready.wait()
    found = TokenCache(Corpus(copy)).load("train", tokenizer=own_tokenizer)
    results.put(found.tokens.tolist())


def test_two_processes_at_once_tokenise_once(copy, split, tokenizer, tmp_path):
    log, context = tmp_path / "log", multiprocessing.get_context("fork")
    results, ready = context.SimpleQueue(), context.Barrier(2, timeout=120)
    processes = [
        context.Process(
            target=load_at_once, args=(copy, log, results), kwargs={"ready": ready}, daemon=True
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    found = [results.get() for _ in processes]
    results.close()
    expected = tokenize_split(split, tokenizer=tokenizer).tokens.tolist()
    assert found == [expected, expected]
    assert log.read_text() == "tokenised\n"


def test_no_endless_wait_for_a_process_that_stands_still(copy, split, tokenizer, monkeypatch):
    monkeypatch.setattr(token_cache, "WAIT_SECONDS", 0.1)
    key = hash_inputs(split, tokenizer=tokenizer, image_format=None, answers="answer")
    cache = TokenCache(Corpus(copy))
    cache.folder.mkdir(parents=True)
    with FileLock(cache.folder / f"{key}.lock"):
        found = cache.load("train", tokenizer=tokenizer)
    assert_equal(found, tokenize_split(split, tokenizer=tokenizer))
    assert entries(copy) == []


def test_a_split_that_changes_meanwhile_is_not_kept(copy, split, tokenizer, monkeypatch):
    records = list(read_records(split))

    def tokenize(path, **options):
        write_jsonl(path, records[1:])
        return tokenize_split(path, **options)

    monkeypatch.setattr(token_cache, "tokenize_split", tokenize)
    found = TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    assert len(found.answer_starts) == len(records) - 1
    assert entries(copy) == []


def test_a_removed_entry_that_is_mapped_can_still_be_read(copy, split, tokenizer):
    expected = tokenize_split(split, tokenizer=tokenizer)
    for _ in range(2):
        found = TokenCache(Corpus(copy)).load("train", tokenizer=tokenizer)
    shutil.rmtree(*entries(copy))
    assert_equal(found, expected)
