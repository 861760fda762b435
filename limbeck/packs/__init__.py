"""Domain packs: one folder of data a domain, and how to find them. No code, no torch.

A pack holds `pack.yaml` (specialties, relations), `questions.yaml` (question forms), a folder of
facts, `terms.yaml` (English names) and `wording.yaml` (questions that facts answer beyond doubt).
"""

from pathlib import Path

import yaml

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The packs that ship with the project, in order of their names."""
    return sorted(path.parent.name for path in FOLDER.glob("*/pack.yaml"))


def folder(name: str) -> Path:
    """Where the files of a pack lie; there may be none of that name."""
    return FOLDER / name


def describe_packs() -> dict[str, str]:
    """Each pack's name with its title, for `limbeck list packs`."""
    titles = {}
    for name in names():
        text = (folder(name) / "pack.yaml").read_text(encoding="utf-8")
        title = yaml.load(text, Loader=yaml.CSafeLoader)["title"]
        titles[name] = f"{title['zh']} / {title['en']}"
    return titles
