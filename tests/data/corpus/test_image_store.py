"""Images in a corpus: read, checked, copied, split by image, batched with their tokens."""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from pyarrow import parquet

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, LeakError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import SPLITS, Question, Record, read_jsonl, read_records
from limbeck.data.corpus.splits import SplitConfig, split
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.batch import IGNORED
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.image_processing import ImageFormat, read_pixels
from limbeck.stages import prepare
from tests.support.artifacts import draw_discs

FINDINGS = [{"label": 0, "answer": "正常"}, {"label": 1, "answer": "肺炎", "forms_per_image": 2}]
TESTBED = Path(os.environ.get("LIMBECK_TESTBED", "../shared/data"))
XRAYS = TESTBED / "medical" / "images" / "pneumoniamnist.npz"
FORMS = {"train": ["有什么发现？", "结果如何？"], "evaluation": ["怎么样？", "是什么？"]}


def source(path, **changes):
    fields = {"findings": FINDINGS, "forms": FORMS, "max_dropped_ratio": 1}
    return {"kind": "images", "path": path} | fields | changes


def make(folder, *sources, **changes):
    config = {
        "stage": "prepare",
        "pack": "medical",
        "sources": list(sources),
        "splits": {"validation_ratio": 0.2, "test_ratio": 0.2},
        "tokenizer": {"min_count": 1},
    } | changes
    work = Work("corpus", folder / "corpus", folder / "state")
    work.folder.mkdir(parents=True)
    counts = prepare.run(prepare.Config.model_validate(config), work=work)
    return work.folder, counts


def records(corpus):
    return {name: list(read_records(corpus / "records" / f"{name}.jsonl")) for name in SPLITS}


def questions(corpus, task="finding"):
    return [Question.from_json(item) for item in read_jsonl(corpus / "questions" / f"{task}.jsonl")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    return make(folder, source(draw_discs(folder / "discs.npz", train=40, val=12)))[0]


def test_every_image_is_asked_about_in_its_forms(corpus):
    found = [record for split in records(corpus).values() for record in split]
    assert len(found) == 20 * 1 + 20 * 2
    assert {record.question for record in found} == set(FORMS["train"])
    asked = questions(corpus)
    assert len(asked) == 12 * 2
    assert {item.question for item in asked} == set(FORMS["evaluation"])
    assert all(item.options == ("正常", "肺炎") for item in asked)


def test_the_corpus_stands_alone(corpus):
    """Every image is a file of its own, named by what it shows, and none is left over."""
    used = {
        name
        for items in (*records(corpus).values(), questions(corpus))
        for item in items
        for name in item.images
    }
    files = {path.relative_to(corpus).as_posix() for path in (corpus / "images").iterdir()}
    assert used == files
    assert len(files) == 52


def test_no_image_stands_in_two_splits_or_is_both_learnt_and_asked(corpus):
    found = {
        name: {image for item in items for image in item.images}
        for name, items in records(corpus).items()
    }
    found["asked"] = {image for item in questions(corpus) for image in item.images}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


def test_images_that_are_asked_about_leave_training(tmp_path):
    path = draw_discs(tmp_path / "discs.npz", train=20, val=8)
    arrays = dict(np.load(path))
    arrays["train_images"][:3] = arrays["val_images"][:3]
    np.savez(path, **arrays)
    _, counts = make(tmp_path, source(path))
    assert counts["dropped"] == {"in_evaluation": 3}


def test_a_leaked_image_is_refused_whatever_is_asked(corpus, tmp_path):
    asked = questions(corpus)
    learnt = Record("r", "别的问法？", "正常", "g", "s", images=asked[0].images)
    with pytest.raises(LeakError, match=Path(asked[0].images[0]).name):
        check_leaks([learnt], held_out=asked)
    located = [replace(item, images=(str(tmp_path / item.images[0]),)) for item in asked]
    with pytest.raises(LeakError, match="is held out"):
        check_leaks([learnt], held_out=located)


def test_records_of_one_image_stay_together_whatever_their_group():
    made = [Record(f"{n}", f"{n}?", "a", f"g{n}", "s", images=(f"i{n // 2}",)) for n in range(80)]
    found = split(made, config=SplitConfig(validation_ratio=0.3, test_ratio=0.3), seed=0)
    places = {}
    for name, items in found.items():
        for item in items:
            assert places.setdefault(item.images, name) == name
    assert all(found.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": None}, "has no array 'train_images'; arrays: train_labels"),
        ({"val_labels": np.zeros(3, np.uint8)}, r"shape \[3\], expected one whole number for each"),
        ({"train_labels": np.zeros((40, 1))}, "holds float64"),
        ({"train_images": np.zeros((40, 12), np.uint8)}, r"shape \[40, 12\], expected images"),
        ({"train_images": np.zeros((40, 12, 12))}, "holds float64, expected uint8"),
        ({"train_images": np.zeros((40, 0, 12), np.uint8)}, "no pixel"),
        ({"val_images": np.zeros((4, 12, 12, 2), np.uint8)}, "1 or 3 channels"),
        ({"train_images": np.array([{}])}, "NumPy archive that can be read"),
    ],
)
def test_archives_that_hold_something_else_are_named(change, message, tmp_path):
    path = draw_discs(tmp_path / "discs.npz", train=40, val=4)
    arrays = {
        name: item for name, item in (dict(np.load(path)) | change).items() if item is not None
    }
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        make(tmp_path, source(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text"])
def test_what_is_no_archive_is_named(content, tmp_path):
    path = tmp_path / "discs.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"discs\.npz: is (no NumPy archive|empty)"):
        make(tmp_path, source(path))


def test_labels_without_a_meaning_are_dropped_and_counted(tmp_path):
    path = draw_discs(tmp_path / "discs.npz", train=20, val=8)
    arrays = dict(np.load(path))
    arrays["train_labels"][4], arrays["val_labels"][2] = 7, 9
    np.savez(path, **arrays)
    folder, counts = make(tmp_path, source(path))
    assert counts["dropped"] == {"unknown_label": 1, "evaluation_unknown_label": 1}
    assert len(questions(folder)) == 14
    dropped = list(read_jsonl(folder / "dropped.jsonl"))
    assert {item["place"] for item in dropped} == {
        "discs.npz:train_labels/4",
        "discs.npz:val_labels/2",
    }


def test_findings_and_forms_must_differ(tmp_path):
    path = draw_discs(tmp_path / "discs.npz", train=2, val=2)
    twice = [FINDINGS[0], FINDINGS[1] | {"label": 0}]
    with pytest.raises(ValueError, match="share one label"):
        make(tmp_path / "a", source(path, findings=twice))
    both = {"train": ["有什么发现？"], "evaluation": ["有什么发现"]}
    with pytest.raises(ValueError, match="for evaluation at once"):
        make(tmp_path / "b", source(path, forms=both))


@pytest.fixture
def table(tmp_path):
    """Rows about images of several kinds, some of them bad."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(30):
        pixels = rng.integers(0, 255, (9 + index, 11, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.{'jpg' if index % 2 else 'bmp'}")
    (folder / "cut.png").write_bytes((folder / "0.bmp").read_bytes()[:200])
    (folder / "text.png").write_text("not an image")
    asked = {"question": "这张图显示什么？", "answer": "图像显示一切正常，没有发现任何异常。"}
    names = [f"{index}.{'jpg' if index % 2 else 'bmp'}" for index in range(30)]
    names += ["absent.png", "cut.png", "text.png", "../secret.png"]
    rows = [asked | {"images": [name]} for name in names]
    rows.append(rows[0] | {"images": 3})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, folder


def test_images_of_a_table(table, tmp_path):
    path, folder = table
    rows = {"kind": "jsonl", "path": path, "image_folder": str(folder), "max_dropped_ratio": 1}
    made, counts = make(tmp_path, rows)
    assert counts["kept"] == 30
    assert counts["dropped"] == {
        "image_missing": 1,
        "image_damaged": 1,
        "image_unreadable": 1,
        "image_outside": 1,
        "wrong_type": 1,
    }
    names = {image for items in records(made).values() for item in items for image in item.images}
    assert len(names) == 30
    assert all((made / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_images_inside_their_rows(table, tmp_path):
    """As a chat log holds them (data URLs), and as `datasets` stores them (bytes in a cell)."""
    path, folder = table
    files = [(folder / name).read_bytes() for name in ("0.bmp", "1.jpg", "cut.png")]
    urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    asked = {"question": "这张图显示什么？", "answer": "图像显示一切正常，没有发现任何异常。"}
    rows = [asked | {"images": [url]} for url in (*urls, "data:image/png,%%")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = [asked | {"image": {"bytes": file, "path": "0.bmp"}} for file in files]
    parquet.write_table(pyarrow.Table.from_pylist(cells), tmp_path / "cells.parquet")
    saved = Dataset.from_list(cells).cast_column("image", ImageFeature())
    saved.save_to_disk(tmp_path / "saved")
    sources = (
        ({"kind": "jsonl", "path": path}, {"image_damaged": 1, "image_unreadable": 1}),
        ({"kind": "parquet", "path": tmp_path / "cells.parquet"}, {"image_damaged": 1}),
        ({"kind": "hub", "dataset": str(tmp_path / "saved")}, {"image_damaged": 1}),
    )
    found = []
    for number, (rows, dropped) in enumerate(sources):
        made, counts = make(tmp_path / str(number), rows | {"max_dropped_ratio": 1})
        assert (counts["kept"], counts["dropped"]) == (2, dropped)
        kept = [item for items in records(made).values() for item in items]
        found.append({image for item in kept for image in item.images})
    assert found[0] == found[1] == found[2] and len(found[0]) == 2


def test_images_that_nothing_reads_are_no_text_questions(table, tmp_path):
    path, _ = table
    with pytest.raises(DataError, match="set image_folder"):
        make(tmp_path, {"kind": "jsonl", "path": path})


FORMAT = ImageFormat(side_pixels=8, channels=1, mean=0.5, std=0.5, num_tokens=4, token_id=0)


@pytest.fixture
def batches(corpus):
    tokenizer = load_tokenizer(corpus / "tokenizer")
    token = tokenizer.get_vocab()["<|image|>"]
    image_format = ImageFormat(**{**vars(FORMAT), "token_id": token})
    config = BatchingConfig(
        per_device_train_batch_size=4, gradient_accumulation_steps=2, loss_on="all"
    )
    return Batches(Corpus(corpus), tokenizer=tokenizer, config=config, image_format=image_format)


def test_batches_hold_the_images_of_their_records(batches, corpus):
    train = records(corpus)["train"]
    batch = batches.batch([5, 0, 2])
    assert batch.images.rows.tolist() == [0, 1, 2]
    for place, row in enumerate(batch.record_ids.tolist()):
        expected = read_pixels(corpus / train[row].images[0], batches.pixels.image_format)
        assert torch.equal(batch.images.pixels[place], torch.from_numpy(expected))
    marked = batch.input_ids == batches.pixels.image_format.token_id
    assert marked.sum(dim=1).tolist() == [4, 4, 4]
    assert (batch.labels[marked] == IGNORED).all()
    assert (batch.labels[~marked & batch.tokens] != IGNORED).all()


def test_image_tokens_follow_the_user_and_precede_the_question(batches, corpus):
    tokenizer = load_tokenizer(corpus / "tokenizer")
    text = tokenizer.decode(batches.batch([0]).input_ids[0].tolist())
    question = records(corpus)["train"][0].question
    assert text.startswith("<|user|>" + "<|image|>" * 4 + question + "<|assistant|>")


@pytest.mark.parametrize(
    ("image_format", "config", "message"),
    [
        (None, {}, "cannot see"),
        (FORMAT, {"max_length": 5}, "raise it"),
        (FORMAT, {"images": "without"}, "images='without'"),
    ],
)
def test_what_a_model_cannot_read_is_refused(image_format, config, message, corpus):
    with pytest.raises(DataError, match=message):
        Batches(
            Corpus(corpus),
            tokenizer=load_tokenizer(corpus / "tokenizer"),
            image_format=image_format,
            config=BatchingConfig(**config),
        )


@pytest.mark.skipif(not XRAYS.is_file(), reason="the test bed lies outside the project")
def test_chest_xrays(tmp_path):
    corpus, counts = make(tmp_path, source(XRAYS, specialty="respiratory"))
    asked = questions(corpus)
    assert len({item.images for item in asked}) == 524
    assert sum("肺炎" in item.answers for item in asked) == 2 * 389
    # The archive repeats ten images of `val` in `train`.
    assert counts["dropped"]["in_evaluation"] == 10
    learnt = {name for items in records(corpus).values() for item in items for name in item.images}
    assert len(learnt) > 3800
    assert not learnt & {name for item in asked for name in item.images}
