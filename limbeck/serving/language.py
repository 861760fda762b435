"""In which language the service writes what no model does."""

import re

from limbeck.contracts.facts import Language

_HAN = re.compile("[\u3400-\u9fff]")


def find_language(text: str) -> Language:
    """Chinese where a text holds a Chinese character, English otherwise."""
    return "zh" if _HAN.search(text) else "en"
