"""From a question to the stored fact that answers it, where there is no doubt; otherwise nothing.

Every character has to be accounted for: one name of one subject, and around it wording that the
pack lists for one relation. So what is negated, compared, personal, numbered or asked besides finds
nothing, and neither does anything unforeseen. A pure function of a text and of facts.
"""

from dataclasses import dataclass

from limbeck.contracts.facts import SUBJECT, Language, StoredFact
from limbeck.serving.facts.store import START_CHARS, FactStore, spell

MAX_CHARS = 120
"""Of a question; a longer one says more than what it asks."""
SOURCES: dict[Language, str] = {
    "zh": "（出处：{title}知识库 {id}）",
    "en": "(source: {title}, {id})",
}


@dataclass(frozen=True)
class FoundFact:
    """A stored fact that answers a question."""

    fact: StoredFact
    language: Language
    """Of the question, and so of the answer."""
    source: str
    """Pack and fact, such as `medical:高血压|symptoms`."""
    title: str
    """The pack's, in the language."""

    @property
    def answer(self) -> str:
        """The fact alone."""
        return self.fact.texts[self.language]

    @property
    def cited_answer(self) -> str:
        """The fact with its source."""
        cited = SOURCES[self.language].format(title=self.title, id=self.source)
        return f"{self.answer}\n\n{cited}"


def find_fact(question: str, store: FactStore) -> FoundFact | None:
    """The one fact that a question asks for; None where anything is left open."""
    if not store.facts or len(question) > MAX_CHARS or SUBJECT in question:
        return None
    text = spell(question)
    spans = _find_names(text, store)
    if len(spans) != 1:
        return None
    begin, end = spans[0]
    asked = text[:begin] + SUBJECT + text[end:]
    found: list[tuple[str, Language]] = [
        (relation, language)
        for relation, language, pattern in store.questions
        if pattern.fullmatch(asked)
    ]
    if len(found) != 1:
        return None
    relation, language = found[0]
    fact = store.facts.get((store.names[text[begin:end]], relation))
    if fact is None or language not in fact.texts:
        return None
    title = store.title.get(language, store.pack)
    return FoundFact(fact, language, f"{store.pack}:{fact.id}", title)


def _find_names(text: str, store: FactStore) -> list[tuple[int, int]]:
    """Where the names of subjects stand, without those that stand inside a longer one."""
    found: list[tuple[int, int]] = []
    reached = 0
    for begin in range(len(text) - START_CHARS + 1):
        for name in store.names_by_start.get(text[begin : begin + START_CHARS], ()):
            if text.startswith(name, begin):
                end = begin + len(name)
                if end > reached:
                    found.append((begin, end))
                    reached = end
                break
    return found
