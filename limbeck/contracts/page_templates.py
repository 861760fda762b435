"""Templates of the pages and tables that people read."""

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


@functools.cache
def load_template(*folders: Path, name: str, escape_html: bool = True) -> Template:
    """The template in the first of the folders that has it; compiled once in a process.

    What it names and is not given is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=escape_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
