"""Markup of web pages that goes, and marked code and formulas that stay as they are."""

import html
import re
from typing import final

LINK = re.compile(r"(?:https?://|www\.)[!-+\--:<-~]+", re.IGNORECASE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]{0,500})?)/?>")
ATTRIBUTE = r"[A-Za-z_:@][\w:.@-]*"
VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'=`]+)"""
SWITCHES = "nowrap|noshade|disabled|checked|selected|hidden|controls|autoplay|loop|async|defer"
ATTRIBUTES = re.compile(rf"(?:\s+(?:{ATTRIBUTE}\s*=\s*{VALUE}|{SWITCHES}))*\s*", re.IGNORECASE)
INLINE = frozenset(
    [
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "blink",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "ins",
        "kbd",
        "label",
        "mark",
        "nobr",
        "q",
        "rb",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
    ]
)
BLOCK = frozenset(
    [
        "address",
        "applet",
        "area",
        "article",
        "aside",
        "audio",
        "base",
        "basefont",
        "blockquote",
        "body",
        "br",
        "button",
        "canvas",
        "caption",
        "center",
        "col",
        "colgroup",
        "datalist",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "embed",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "frame",
        "frameset",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "head",
        "header",
        "hgroup",
        "hr",
        "html",
        "iframe",
        "img",
        "input",
        "legend",
        "li",
        "link",
        "main",
        "map",
        "marquee",
        "menu",
        "meta",
        "meter",
        "nav",
        "noframes",
        "noscript",
        "object",
        "ol",
        "optgroup",
        "option",
        "output",
        "p",
        "param",
        "picture",
        "pre",
        "progress",
        "script",
        "search",
        "section",
        "select",
        "slot",
        "source",
        "style",
        "sub",
        "summary",
        "sup",
        "svg",
        "table",
        "tbody",
        "td",
        "template",
        "textarea",
        "tfoot",
        "th",
        "thead",
        "title",
        "tr",
        "track",
        "ul",
        "video",
    ]
)
"""Between them words stand apart, as on the page; `sup` and `sub` are kept apart from digits."""
RAISED = re.compile(r"(?<=[A-Za-z0-9)\]）])<sup>\s*([-+−]?[\w.]+)\s*</sup>", re.IGNORECASE)
LOWERED = re.compile(r"<sub>\s*([\w.+-]+)\s*</sub>(?!\d)", re.IGNORECASE)

FENCED = r"(?P<fence>```+)[^`\n]*\n.*?(?P=fence)"
INLINE_CODE = r"(?<!`)(?P<ticks>`{1,2})(?=[!-_a-~])[^\n]+?(?<!`)(?P=ticks)(?!`)"
FORMULA = (
    r"\$\$.+?\$\$|\\\(.+?\\\)|\\\[.+?\\\]"
    r"|\$(?=[^$\n]*[\\^_{])[^$\n\u3400-\u9fff，。；！？]+\$"
)
VERBATIM = re.compile(f"{FENCED}|{INLINE_CODE}|{FORMULA}", re.DOTALL)
FIRST_PLACEHOLDER, LAST_PLACEHOLDER = 0xF0000, 0xFFFFD
PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")


@final
class Verbatim:
    """Takes the marked code and formulas of a text out, and puts them back.

    A character for private use stands for each of them meanwhile; the text's own ones, which mean
    nothing outside of it, become controls.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def hide(self, text: str) -> str:
        """The text with a placeholder for each piece of code and each formula."""
        text = PRIVATE.sub("\x07", text)
        if not ("`" in text or "$" in text or "\\" in text):
            return text
        return VERBATIM.sub(self._hide, text)

    def show(self, text: str) -> str:
        """The text with every piece back in its place."""
        for index, piece in enumerate(self._pieces):
            text = text.replace(chr(FIRST_PLACEHOLDER + index), piece)
        return text

    def _hide(self, match: re.Match[str]) -> str:
        if FIRST_PLACEHOLDER + len(self._pieces) > LAST_PLACEHOLDER:
            return match[0]
        self._pieces.append(match[0])
        return chr(FIRST_PLACEHOLDER + len(self._pieces) - 1)


def is_placeholder(char: str) -> bool:
    """Whether a character stands for code or for a formula."""
    return FIRST_PLACEHOLDER <= ord(char) <= LAST_PLACEHOLDER


def remove_html(text: str) -> str:
    """The text without entities, comments and tags of HTML; no other `<...>` is a tag."""
    while "&" in text and (plain := html.unescape(text)) != text:
        text = plain
    if "<" not in text:
        return text
    text = LOWERED.sub(r"\1", RAISED.sub(r"^\1", COMMENT.sub(_gap, text)))
    return TAG.sub(_remove_tag, text)


def _remove_tag(match: re.Match[str]) -> str:
    name = match[2].lower()
    if name not in INLINE | BLOCK or not ATTRIBUTES.fullmatch(match[3].removesuffix("/")):
        return match[0]
    return " " if name in BLOCK else _gap(match)


def _gap(match: re.Match[str]) -> str:
    """A space where two numbers would run together."""
    before = match.string[max(0, match.start() - 1) : match.start()]
    after = match.string[match.end() : match.end() + 1]
    return " " if before.isdigit() and after.isdigit() else ""
