"""Prepare: sources to a corpus of clean records, splits, questions, a tokenizer and a data card.

Every record that does not come out is counted with its reason and place.
"""

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from limbeck.contracts.artifacts import Kind, Work, write_atomically
from limbeck.contracts.config import Choice
from limbeck.contracts.errors import DataError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import UNSCORED, Drop, Note, Question, Record, write_jsonl
from limbeck.contracts.registry import READERS
from limbeck.contracts.stage import StageConfig
from limbeck.data.corpus.data_card import describe, render_page
from limbeck.data.corpus.image_store import FOLDER as IMAGE_FOLDER
from limbeck.data.corpus.image_store import ImageStore, image_names
from limbeck.data.corpus.splits import SplitConfig, split
from limbeck.data.corpus.train_tokenizer import TokenizerConfig, train_tokenizer
from limbeck.data.filters.dedup import NearConfig
from limbeck.data.filters.drop_log import Ledger
from limbeck.data.filters.entities import Lexicon, LexiconFile, guess_specialty, read_names
from limbeck.data.filters.pairs import (
    LengthConfig,
    cap,
    clean_record,
    drop_asked,
    drop_doubtful,
    drop_duplicates,
    find_misfit,
)
from limbeck.data.filters.quality_classifier import QualityClassifier, ScorerConfig
from limbeck.data.packs.schema import Pack, load_pack, locate_pack
from limbeck.data.readers.base import Item, ReaderConfig
from limbeck.env.progress import track
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.checkpoints import load_tokenizer

logger = logging.getLogger(__name__)

Source = Annotated[ReaderConfig, Choice(READERS, what="source")]


class Config(StageConfig):
    """A corpus."""

    make: ClassVar[Kind] = "corpus"

    pack: str
    """The domain: a pack's name, or the folder of one."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    lengths: LengthConfig = LengthConfig()
    near: NearConfig = NearConfig()
    least_confidence: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """A free-text record stays only above this."""
    scorer: ScorerConfig = ScorerConfig()
    lexicon: tuple[LexiconFile, ...] = ()
    """Names to mark besides the pack's own."""
    splits: SplitConfig = SplitConfig()
    tokenizer: TokenizerConfig | Path = TokenizerConfig()
    """How to train one, or the folder of a teacher's own."""
    seed: int = 0

    @model_validator(mode="after")
    def _check_labels(self) -> "Config":
        labels = [source.label for source in self.sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}: give one of them a `name`")
        return self

    def external_paths(self) -> Iterator[Path]:
        """The pack's folder besides every file that a source reads."""
        yield locate_pack(self.pack)
        yield from super().external_paths()


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the corpus; the metrics are its counts."""
    pack = load_pack(config.pack)
    lexicon = Lexicon(_collect_names(config, pack=pack))
    scorer = QualityClassifier(lexicon, pack.specialties_of_name)
    with Ledger(work.folder / "dropped.jsonl") as ledger:
        records, questions = _read(config, pack=pack, ledger=ledger, folder=work.folder)
        records = _filter(records, questions, config=config, scorer=scorer, ledger=ledger)
        for record in records:
            ledger.account(record.source).kept += 1
        ledger.check()
    if not records:
        reasons = dict(ledger.totals().dropped.most_common(5))
        raise DataError(f"no record is left; dropped by reason: {reasons}; see dropped.jsonl")
    records = list(_mark(records, lexicon=lexicon, specialties=pack.specialties_of_name))
    splits = split(records, config=config.splits, seed=config.seed)
    held_out = [*splits["validation"], *splits["test"]]
    check_leaks(splits["train"], held_out=[*held_out, *questions])
    _write_records(splits, questions, folder=work.folder)
    _drop_unused_images([*splits["train"], *held_out], questions, folder=work.folder)
    num_tokens = _make_tokenizer(
        config,
        splits["train"],
        folder=work.folder / "tokenizer",
        special=(IMAGE_TOKEN,) if (work.folder / IMAGE_FOLDER).is_dir() else (),
    )
    card = describe(
        splits,
        questions=questions,
        accounts=ledger.accounts,
        pack=pack,
        free_text=_free_text(config),
    )
    card |= {
        "name": work.name,
        "manner": {
            "joiner": pack.description.joiner,
            "unknown_answer": pack.description.unknown_answer,
        },
        "confidence": scorer.report,
        "tokenizer": {
            "vocab": num_tokens,
            "trained_here": isinstance(config.tokenizer, TokenizerConfig),
        },
        "lexicon_names": lexicon.num_names,
    }
    text = json.dumps(card, ensure_ascii=False, indent=2, sort_keys=True)
    write_atomically(work.folder / "card.json", text + "\n")
    write_atomically(work.folder / "card.html", render_page(card))
    return card["counts"]


def _free_text(config: Config) -> set[str]:
    return {source.label for source in config.sources if source.free_text}


def _collect_names(config: Config, *, pack: Pack) -> dict[str, str]:
    names = dict(pack.names)
    for file in config.lexicon:
        for name in read_names(file):
            names.setdefault(name, file.type)
    return names


def _read(
    config: Config, *, pack: Pack, ledger: Ledger, folder: Path
) -> tuple[list[Record], list[Question]]:
    """What the sources hold; free text is cleaned and measured as it comes."""
    records: list[Record] = []
    questions: list[Question] = []
    shelf = ImageStore(folder)
    with track("sources", total=len(config.sources), unit="sources") as advance:
        for source in config.sources:
            account = ledger.account(source.label)
            account.notes["kind"] = source.kind
            for read in source.read(pack=pack, seed=config.seed):
                item = _keep_images(read, shelf=shelf, source=source.label)
                if isinstance(item, Question):
                    questions.append(item)
                elif isinstance(item, Note):
                    _add_note(account.notes, item)
                else:
                    account.read += 1
                    if isinstance(item, Drop):
                        ledger.drop(item)
                        continue
                    record = clean_record(item) if source.free_text else item
                    reason = find_misfit(record, config.lengths) if source.free_text else ""
                    if reason:
                        ledger.drop_record(record, reason=reason)
                    else:
                        records.append(record)
            advance(1, note=f"{source.label}: {account.read:,} read")
    return records, questions


def _keep_images(item: Item, *, shelf: ImageStore, source: str) -> Item:
    """The item with its images in the corpus; a drop where one of them cannot be read."""
    if isinstance(item, Record | Question) and item.images:
        return shelf.take(item, source=source)
    return item


def _add_note(notes: dict[str, Any], note: Note) -> None:
    if isinstance(note.value, dict):
        notes.setdefault(note.name, {}).update(note.value)
    else:
        notes[note.name] = note.value


def _filter(
    records: Sequence[Record],
    questions: Sequence[Question],
    *,
    config: Config,
    scorer: QualityClassifier,
    ledger: Ledger,
) -> list[Record]:
    free_text = _free_text(config)
    free = [record for record in records if record.source in free_text]
    made = [record for record in records if record.source not in free_text]
    free = drop_asked(free, questions, ledger=ledger)
    # Doubtful ones last, so that of two equal records the trusted one is the first.
    free.sort(key=lambda record: UNSCORED < record.confidence <= config.least_confidence)
    unique = drop_duplicates([*made, *free], free_text=free_text, config=config.near, ledger=ledger)
    kept = [record for record in unique if record.source not in free_text]
    kept += drop_doubtful(
        [record for record in unique if record.source in free_text],
        scorer=scorer,
        config=config.scorer,
        threshold=config.least_confidence,
        ledger=ledger,
        seed=config.seed,
    )
    most = {source.label: source.max_records for source in config.sources}
    return cap(kept, most=most, ledger=ledger, seed=config.seed)


def _mark(
    records: Iterable[Record], *, lexicon: Lexicon, specialties: Mapping[str, tuple[str, ...]]
) -> Iterator[Record]:
    """The records with their entities, and a specialty where the entities point to one."""
    for record in records:
        entities = lexicon.mark(record)
        specialty = record.specialty or guess_specialty(entities, specialties)
        yield dataclasses.replace(record, entities=entities, specialty=specialty)


def _write_records(
    splits: Mapping[str, Sequence[Record]], questions: Sequence[Question], *, folder: Path
) -> None:
    (folder / "records").mkdir(exist_ok=True)
    for name, records in splits.items():
        write_jsonl(folder / "records" / f"{name}.jsonl", records)
    (folder / "questions").mkdir(exist_ok=True)
    tasks: dict[str, list[Question]] = {}
    for question in questions:
        tasks.setdefault(question.task, []).append(question)
    for task, asked in tasks.items():
        write_jsonl(folder / "questions" / f"{task}.jsonl", asked)


def _drop_unused_images(
    records: Sequence[Record], questions: Sequence[Question], *, folder: Path
) -> None:
    """Delete what no record that stayed and no question asks about."""
    used = {*image_names(records), *image_names(questions)}
    for path in (folder / IMAGE_FOLDER).glob("*"):
        if path.relative_to(folder).as_posix() not in used:
            path.unlink()
    if (folder / IMAGE_FOLDER).is_dir() and not used:
        (folder / IMAGE_FOLDER).rmdir()


def _make_tokenizer(
    config: Config, records: Sequence[Record], *, folder: Path, special: Sequence[str]
) -> int:
    """The number of tokens of the tokenizer now in the folder."""
    if isinstance(config.tokenizer, TokenizerConfig):
        texts = (text for r in records for text in (*r.history, r.question, r.answer) if text)
        train_tokenizer(texts, folder=folder, config=config.tokenizer, special=special)
    else:
        load_tokenizer(config.tokenizer).save_pretrained(folder)
    return len(load_tokenizer(folder))
