"""Links lead somewhere, every page is reached, and shell blocks are marked as such."""

import pytest

from tests.support import documentation
from tests.support.documentation import PAGES, ROOT


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    lost = []
    for target, anchor in documentation.read_links(page):
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            lost.append(target)
        elif anchor and anchor not in documentation.read_anchors(path):
            lost.append(f"{target}#{anchor}")
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shell_blocks_are_marked_as_such(page):
    """A block that is not marked `sh` or `bash` would escape the test of commands."""
    for block in documentation.read_blocks(page):
        assert block.language not in ("shell", "console"), block.text
        if block.language in documentation.SHELL:
            continue
        for line in block.text.splitlines():
            assert line.split(" ")[0] not in documentation.PROGRAMS, line


def test_files_that_are_named_exist():
    named = [(name(page), path) for page in PAGES for path in documentation.read_paths(page)]
    assert [item for item in named if not (ROOT / item[1]).exists()] == []


def test_every_page_can_be_reached():
    """From the README, by links."""
    reached, rest = set(), [ROOT / "README.md"]
    while rest:
        here = rest.pop()
        if here in reached or here.suffix != ".md":
            continue
        reached.add(here)
        for target, _ in documentation.read_links(here):
            path = (here.parent / target).resolve()
            if path.is_dir():  # a folder's own page, and the folder itself where it has none
                rest += [path / "README.md"] if (path / "README.md").exists() else path.glob("*.md")
            elif path.exists():
                rest.append(path)
    assert [name(page) for page in PAGES if page not in reached] == []


def test_pages_show_the_examples_that_the_tests_run():
    folder = ROOT / "docs" / "extend"
    for example in (folder / "examples").glob("*.py"):
        page = folder / f"{example.stem.replace('_', '-')}.md"
        blocks = [block.text for block in documentation.read_blocks(page)]
        assert example.read_text(encoding="utf-8") in blocks, page
