"""Texts that mark their speakers, as Anthropic's, BELLE's and Guanaco's data hold conversations."""

import re

from limbeck.data.readers.messages import ASSISTANT, ROLES, USER, CheckedMessage

TRANSCRIPTS = (
    re.compile(r"\n\n(Human|Assistant):[ ]?"),
    re.compile(r"(?:\A|\n+)(Human|Assistant):[ ]?"),
    re.compile(r"(?:\A|\s*)### (Human|Assistant):[ ]?"),
)
"""What stands before a turn: in hh-rlhf of Anthropic, in BELLE, in Guanaco's Open Assistant."""


def read_transcript(text: str) -> list[CheckedMessage]:
    """The messages of one text that marks its speakers; none where it is no such text.

    A question begins it, and an answer follows.
    """
    for mark in TRANSCRIPTS:
        _, *parts = mark.split(text)
        roles = [ROLES[name.lower()] for name in parts[::2]]
        if mark.match(text) and roles[:2] == [USER, ASSISTANT]:
            return [CheckedMessage(*pair) for pair in zip(roles, parts[1::2], strict=True)]
    return []


def read_prompt(text: str) -> list[CheckedMessage]:
    """The messages of a prompt: those of a transcript, whose last answer is yet to come, or one."""
    messages = read_transcript(text) or [CheckedMessage(USER, text)]
    return messages[:-1] if not messages[-1].text.strip() else messages
