"""The pages for users, and what stands in them: fenced blocks, commands, links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda page: (page.parts, page.name),
)
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
NAMED_PATH = re.compile(r"`((?:tests|limbeck|benchmarks|docs)/[\w./-]*\w)`")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
PROGRAMS = ("limbeck", "make", "pip", "python", "accelerate")
SHELL = ("sh", "bash")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command line of a page, without its comment and the variables that it sets."""

    page: Path
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, language, body) for _, language, body in FENCE.findall(text)]


def read_commands(page: Path) -> list[Command]:
    """The command lines of a page's shell blocks, in order."""
    found = []
    for block in read_blocks(page):
        if block.language not in SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words:
                found.append(Command(page, tuple(words)))
    return found


def read_paths(page: Path) -> list[str]:
    """Files and folders of this repository that a page names as code."""
    return NAMED_PATH.findall(page.read_text(encoding="utf-8"))


def read_links(page: Path) -> list[tuple[str, str]]:
    """Targets of a page's links to files of the project, each with its anchor."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    links = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    found = []
    for link in links:
        target, _, anchor = link.partition("#")
        if "://" not in target:
            found.append((target, anchor))
    return found


def read_anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", item.lower()).strip().replace(" ", "-") for item in headings}
