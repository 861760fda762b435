"""A pack's facts as a service answers them: `facts.json`."""

from collections.abc import Iterator

from limbeck.contracts.facts import FactsFile, Language, StoredFact
from limbeck.data.packs.schema import SPECIALTY, Pack


def make_facts(pack: Pack) -> FactsFile:
    """Every fact that the pack's wording can ask for, in its language and in English.

    English is left out where one of the items has no English name: half an answer is none.
    """
    description = pack.description
    names = {
        name: tuple(dict.fromkeys(filter(None, (name, item.english, *_aliases(pack, name)))))
        for name, item in pack.subjects.items()
    }
    return FactsFile(
        pack=description.name,
        title={"zh": description.title.zh, "en": description.title.en},
        names=names,
        facts=tuple(_facts(pack)),
        wording=pack.wording,
    )


def _aliases(pack: Pack, subject: str) -> tuple[str, ...]:
    return pack.wording.aliases.get(subject, ())


def _facts(pack: Pack) -> Iterator[StoredFact]:
    joiner = pack.description.joiner
    for subject in pack.subjects:
        for relation in pack.wording.questions:
            items = pack.items(subject, relation)
            if not items:
                continue
            texts: dict[Language, str] = {pack.description.language: joiner.join(items)}
            english = _translate(pack, subject, relation)
            if english and pack.description.language != "en":
                texts["en"] = ", ".join(english)
            yield StoredFact(subject=subject, relation=relation, texts=texts)


def _translate(pack: Pack, subject: str, relation: str) -> tuple[str, ...]:
    """A fact's items in English; none where one of them has no English name."""
    found: list[str] = []
    for attribute in pack.description.relations[relation].attributes:
        if attribute == SPECIALTY:
            found.append(pack.description.specialties[pack.specialty_of[subject]].en)
        else:
            items = pack.subjects[subject].attributes.get(attribute, ())
            found += (pack.terms.get(item, "") for item in items)
    return tuple(found) if all(found) else ()
