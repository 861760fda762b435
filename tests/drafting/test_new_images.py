"""`limbeck new` on files with images: found, counted, and left out or read."""

import pytest

from tests.support.drafted_files import clauses, draw, lines, pictured


@pytest.mark.parametrize("options", [(), ("--images", "pictures")])
def test_images_beside_texts_are_found_counted_and_left_out(options, new, tmp_path):
    draw(tmp_path / "pictures" if options else tmp_path, 6)
    text, code, recipe = new("chat.jsonl", lines(pictured(6, others=40)), *options)
    assert code == 0, text
    assert "46 read, 46 usable" in text and "with images 6" in text
    assert "6 rows are about images: they stay in the corpus" in text
    assert "# 6 rows are about images" in (tmp_path / "mine.yaml").read_text()
    assert recipe["corpus"]["sources"][0]["image_folder"] == (options[1] if options else ".")
    for name in ("student", "int8"):
        assert recipe[name]["batching"]["images"] == "without"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pictured(6, name="no{}.png", others=9), "6 of its 15 rows are about images, and 6 of"),
        (pictured(6, name="../no{}.png", others=9), "6 rows name images outside"),
        (pictured(6, name="/else/no{}.png"), "--images names the folder that holds the images"),
        (pictured(6, name="https://example.org/{}.png"), "is no file; save it as one"),
    ],
)
def test_images_that_cannot_be_used_are_named(rows, message, new, tmp_path):
    draw(tmp_path, 6)
    text, code, recipe = new("chat.jsonl", lines(rows))
    assert code == 1
    assert message in text, text
    assert recipe is None


@pytest.mark.parametrize(
    ("rows", "option", "message"),
    [
        (pictured(12), "--no-vision", "all of its 12 rows are about images"),
        (clauses(30), "--vision", "none of its rows is about an image"),
    ],
)
def test_what_is_wanted_and_cannot_be_had_is_refused(rows, option, message, new, tmp_path):
    draw(tmp_path, 12)
    text, code, recipe = new("chat.jsonl", lines(rows), option)
    assert code == 1
    assert message in text, text
    assert recipe is None


def test_texts_alone_name_no_folder_of_images(new):
    _, code, recipe = new("a.jsonl", lines(clauses(30)))
    assert code == 0
    assert "image_folder" not in recipe["corpus"]["sources"][0]
    assert "images" not in recipe["student"]["batching"]
