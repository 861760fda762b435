"""Which columns of a file may hold what was looked for, in words for the user."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.data.readers.messages import find_speaker, is_turn
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import PATH_SIGN, Row, path_names

NUM_SHOWN = 12
ALIKE, VERY_ALIKE = 0.6, 0.75
"""Ratcliff and Obershelp's similarity from which a name is taken for another."""
MAX_NAME_CHARS = 40
ABOUT = re.compile(r"([_ .-](id|ids|idx|index|type|date|time|url)|Id)\s*$")
"""How columns end that say something of a question and do not hold it."""
QUESTION_NAMES = (
    *("prompt", "query", "instruction", "input", "user", "ask", "title", "problem", "utterance"),
    *("sentence", "text", "q", "inputs", "ctx", "goal", "问题", "提问", "题目", "题干"),
    *("指令", "问", "質問"),
    *("frage", "pregunta", "pergunta", "domanda", "вопрос", "السؤال", "คำถาม", "질문"),
)
"""What data sets call a question, the likeliest first."""
ANSWER_NAMES = (
    *("response", "completion", "output", "reply", "assistant", "chosen", "target", "targets"),
    *("solution", "label", "a", "cop", "gold", "correct", "回答", "答案", "正确答案"),
    *("参考答案", "标准答案", "回复", "输出", "答", "antwort", "réponse"),
    *("respuesta", "resposta", "risposta", "ответ", "الجواب", "الإجابة", "คำตอบ", "답변", "답"),
)
CONTEXT_NAMES = (
    *("context", "passage", "article", "paragraph", "document", "story", "background"),
    *("premise", "input"),
    *("上下文", "背景", "文章", "段落", "材料", "输入"),
)
"""What data sets call a text that a question is about."""
OPTIONS_NAMES = ("options", "choices", "option", "endings", "选项")
"""What data sets call a column that holds all options of a question."""
ONE_OPTION = re.compile(r"(|op|opt|options?|choices?|answers?|ending|sol|选项)[ _-]?([a-z]|\d)")
"""The name of a column that holds one of them: `A`, `opa`, `option_1`."""


def guess_context(found: Iterable[str]) -> str:
    """The likely column of the text that a question is about; '' where none is."""
    by_lower = {column.strip().lower(): column for column in found}
    return next((by_lower[name] for name in CONTEXT_NAMES if name in by_lower), "")


def guess_options(found: Iterable[str]) -> tuple[str, ...]:
    """The likely columns of a question's options, one or one for each; none where none is."""
    runs: dict[str, list[tuple[str, str]]] = {}
    for name in found:
        lower = name.strip().lower()
        if lower.rpartition(PATH_SIGN)[2] in OPTIONS_NAMES:
            return (name,)
        if match := ONE_OPTION.fullmatch(lower):
            runs.setdefault(match[1], []).append((match[2], name))
    for run in runs.values():
        signs = "".join(sign for sign, _ in run)
        if len(run) > 1 and any(
            known.startswith(signs) for known in ("abcdefghij", "0123", "123456")
        ):
            return tuple(name for _, name in run)
    return ()


def nearest(name: str, *, found: Iterable[str], least: float = ALIKE) -> str:
    """The column that is most like a name, whatever its case; '' where none is like it."""
    by_lower = {column.strip().lower(): column for column in reversed(list(found))}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=least)
    return by_lower[near[0]] if near else ""


def quote(names: Iterable[str]) -> str:
    """The first of some names, as a message shows them."""
    names = [name[:MAX_NAME_CHARS] for name in names]
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return (", ".join(map(repr, names[:NUM_SHOWN])) or "none") + more


def guess_columns(found: Sequence[str], columns: Columns) -> tuple[list[str], str]:
    """The likely columns of the question and the likely one of the answer; '' where none is."""
    options = guess_options(found)
    found = [name for name in found if name not in options]
    question = [_guess(name, found, names=QUESTION_NAMES) for name in columns.question]
    rest = [name for name in found if name not in question]
    return question, _guess(columns.answer, rest, names=ANSWER_NAMES)


def describe_columns(found: Sequence[str], columns: Columns) -> str:
    """What a file lacks, what it has, and which `columns` the recipe could name."""
    missing = [name for name in (*columns.question, columns.answer) if name not in found]
    question, answer = guess_columns(found, columns)
    message = f"has no column {' and no '.join(map(repr, missing))}; found {quote(found)}; "
    if any(question) or answer:
        guessed = ", ".join(filter(None, question)) or "..."
        return message + (
            f"did you mean `columns: {{question: [{guessed}], answer: {answer or '...'}}}`? "
            "Set it on the source"
        )
    return message + "set `columns` on the source"


def describe_wrapped(values: JsonMapping, *, start: str = "") -> str:
    """What to do with the one object of a file that holds all rows; '' where it holds none."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if inner := describe_wrapped(value, start=f"{start}{name}{PATH_SIGN}"):
                return inner
        elif isinstance(value, list) and _are_rows(value):
            inner = [key for key, item in value[0].items() if isinstance(item, list)]
            inner = [key for key in inner if _are_rows(value[0][key])]
            if inner:
                return (
                    f"is one object, and the objects in {start + str(name)!r} hold more objects in "
                    f"{quote(inner)}: write an object for each question, with all of its own"
                )
            return (
                f"is one object, and {start + str(name)!r} holds a list of {len(value)} objects: "
                "write that list as the file"
            )
    keys = [value.keys() for value in values.values() if isinstance(value, Mapping)]
    if len(keys) > 1 and keys.count(keys[0]) == len(values) and len(keys[0]) > 1:
        what = "column" if all(str(key).isdecimal() for key in keys[0]) else "row by its name"
        return f"is one object with an object for each {what}; write an object for each row"
    lengths = [len(value) for value in values.values() if isinstance(value, list)]
    if len(lengths) > 1 and lengths.count(lengths[0]) == len(values) and lengths[0] > 1:
        return "is one object with a list for each column; write an object for each row"
    return ""


def _are_rows(value: list[Json]) -> bool:
    """Whether a list's first item is an object, and no message of a chat."""
    first = value[0] if value else None
    return isinstance(first, Mapping) and not find_speaker(first)


def describe_mismatch(row: Row, columns: Columns, *, detail: str) -> str:
    """Why the rows of a file cannot be used, from one that lacks what is needed."""
    if chats := find_chats(row.values):
        return f"holds chats in {chats[0]!r}; rename it to `messages`"
    found = [*map(str, row.values)]
    if columns.answer in found and any(name in found for name in columns.question):
        return (
            f"holds no usable row; the first at {row.place}: {detail}; fill them in, or name other "
            "columns"
        )
    found = list(path_names(row.values))
    return f"holds no usable row: it {describe_columns(found, columns)}"


def find_chats(values: JsonMapping) -> list[str]:
    """The columns that hold lists of messages."""
    return [
        name
        for name, value in values.items()
        if isinstance(value, list)
        and value
        and isinstance(value[0], Mapping)
        and (find_speaker(value[0]) or is_turn(value[0]))
    ]


def _guess(name: str, found: Sequence[str], *, names: Sequence[str]) -> str:
    """The column that is a name, is very like it, is usual for its meaning, or is a little like it.

    A little like `question` is `solution` as well.
    """
    if name in found:
        return name
    found = [column for column in found if not ABOUT.search(column)]
    by_lower = {column.strip().lower(): column for column in reversed(found)}
    usual = next((by_lower[known] for known in names if known in by_lower), "")
    return nearest(name, found=found, least=VERY_ALIKE) or usual or nearest(name, found=found)
