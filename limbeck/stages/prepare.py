"""Prepare: sources to a corpus of clean records, splits, questions, a tokenizer and a data card.

Every record that does not come out is counted with its reason and place.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Work, write_atomically
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Change, Drop, Note, Question, Reason, Record
from limbeck.data.corpus.account import check_dropped, count_source, draw_sources
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.data_card import describe, render_page
from limbeck.data.corpus.image_store import ImageStore, image_names
from limbeck.data.corpus.splits import drop_asked, split
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.data.corpus.unlabelled import describe_unlabelled, keep_new, withhold_answers
from limbeck.data.filters.base import FilterContext
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.limit import Limit
from limbeck.data.filters.mark_entities import MarkEntities
from limbeck.data.filters.normalization.record import Normalizer, normalize_record
from limbeck.data.filters.record_log import RecordLog
from limbeck.data.loading.chat_template import render_record
from limbeck.data.packs.load import empty_pack, load_pack
from limbeck.data.packs.schema import Pack
from limbeck.data.packs.stored_facts import make_facts
from limbeck.data.readers.base import ReaderConfig, ReaderItem
from limbeck.data.readers.lexicon import read_names
from limbeck.env.progress import print_table, track
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.chat_tokens import chat_template_of
from limbeck.models.tokenizers import check_template, load_tokenizer
from limbeck.stages.config.prepare import Config

SWITCH = "enable_thinking"
"""The variable of chat templates that switches thinking off."""
SHOWN_CHARS = 160
"""Of what a template said: the end, since a folder of any length stands before it."""
REFUSED_BY_TEMPLATE = Reason("refused_by_template", "对话模板拒绝", "refused by the chat template")
LAST_FILTERS = (Limit(), MarkEntities())
"""Follow those of every recipe."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the corpus; the metrics are its counts, in all and by source."""
    corpus = Corpus(work.folder)
    pack = load_pack(config.pack) if config.pack else empty_pack()
    lexicon = Lexicon(_collect_names(config, pack=pack))
    folder = work.one("tokenizer").path if "tokenizer" in work.inputs else None
    tokenizer = open_tokenizer(config, folder=folder)
    questions: list[Question] = []
    with RecordLog(corpus.dropped_path) as log:
        context = FilterContext(
            pack=pack,
            lexicon=lexicon,
            sources={source.label: source.source for source in config.sources},
            questions=questions,
            seed=config.seed,
            log=log,
        )
        stream = _read(config, pack=pack, questions=questions, log=log, folder=work.folder)
        for step in (*config.filters, *LAST_FILTERS):
            stream = step.run(stream, context=context)
        stream = _drop_refused(stream, tokenizer=tokenizer, log=log)
        records = list(stream)
        answered = [record for record in records if record.answer]
        answered = list(drop_asked(answered, stated=config.stated_splits, log=log))
        splits = split(
            answered, config=config.splits, seed=config.seed, stated=config.stated_splits
        )
        held_out = [*splits["validation"], *splits["test"], *questions]
        train, withheld = withhold_answers(
            splits["train"], labelled_ratio=config.labelled_ratio, seed=config.seed, log=log
        )
        splits["train"] = train
        bare = [*withheld, *(record for record in records if not record.answer)]
        unlabelled = keep_new(bare, labelled=train, held_out=held_out, log=log)
        for record in [*itertools.chain(*splits.values()), *unlabelled]:
            log.source(record.source).kept += 1
        log.check()
    print_table(draw_sources(log))
    check_dropped(log, max_ratios={s.label: s.max_dropped_ratio for s in config.sources})
    if not train and not unlabelled:
        num_held_out = len(splits["validation"]) + len(splits["test"])
        if num_held_out:
            raise DataError(
                f"no record is left to train on: all {num_held_out} are held out, because records "
                "of one question stay together; give more questions"
            )
        reasons = dict(log.total_dropped().most_common(5))
        raise DataError(f"no record is left; dropped by reason: {reasons}; see dropped.jsonl")
    check_leaks(train, held_out=held_out)
    for name, members in splits.items():
        corpus.write_records(name, members)
    corpus.write_unlabelled(unlabelled)
    corpus.write_questions(questions)
    used = [*itertools.chain(*splits.values()), *unlabelled]
    _drop_unused_images(used, questions, corpus=corpus)
    num_tokens = _make_tokenizer(
        config,
        [*train, *unlabelled],
        tokenizer=tokenizer,
        folder=corpus.tokenizer_path,
        special=(IMAGE_TOKEN,) if corpus.images_path.is_dir() else (),
    )
    card = describe(splits, questions=questions, log=log, pack=pack, sources=context.sources)
    if unlabelled:
        card["unlabelled"] = describe_unlabelled(unlabelled, labelled=train, questions=questions)
    card |= {"confidence": {"fitted": False}} | context.card
    card |= {
        "name": work.name,
        "tokenizer": {
            "vocab": num_tokens,
            "trained_here": isinstance(config.tokenizer, TokenizerConfig),
            "template_stated": config.states_template,
        },
        "lexicon_names": lexicon.num_names,
    }
    corpus.write_card(card)
    if pack.wording.questions:
        corpus.write_facts(make_facts(pack))
    write_atomically(corpus.page_path, render_page(card, reasons=log.reasons))
    return card["counts"] | {
        "sources": {name: count_source(counts) for name, counts in log.sources.items()}
    }


def _collect_names(config: Config, *, pack: Pack) -> dict[str, str]:
    names = dict(pack.names)
    for file in config.lexicon:
        for name in read_names(file):
            names.setdefault(name, file.type)
    return names


def _read(
    config: Config, *, pack: Pack, questions: list[Question], log: RecordLog, folder: Path
) -> Iterator[Record]:
    """The records of every source; questions, drops and notes are put where they belong."""
    images = ImageStore(folder)
    with track("sources", total=len(config.sources), unit="sources") as advance:
        for source in config.sources:
            counts = log.source(source.label)
            counts.notes["kind"] = source.kind
            for item in _normalized(source, pack=pack, seed=config.seed):
                if isinstance(item, Record | Question) and item.images:
                    item = images.take(item, source=source.label)
                if isinstance(item, Question):
                    questions.append(item)
                    continue
                if isinstance(item, Note):
                    _add_note(counts.notes, item)
                    continue
                if isinstance(item, Change):
                    log.change(item)
                    continue
                counts.read += 1
                if isinstance(item, Drop):
                    log.drop(item)
                else:
                    yield item
            advance(1, note=f"{source.label}: {counts.read:,} read")


def _normalized(source: ReaderConfig, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
    """What a source holds, its records in the form that it asks for."""
    normalizer = Normalizer(source.normalization, source=source.label)
    for item in source.read(pack=pack, seed=seed):
        if isinstance(item, Record) and not source.normalizes:
            yield from normalize_record(item, normalizer=normalizer)
        else:
            yield item


def _add_note(notes: JsonObject, note: Note) -> None:
    if isinstance(note.value, dict):
        notes.setdefault(note.name, {}).update(note.value)
    else:
        notes[note.name] = note.value


def _drop_unused_images(
    records: Sequence[Record], questions: Sequence[Question], *, corpus: Corpus
) -> None:
    """Delete images that no remaining record and no question uses."""
    used = {*image_names(records), *image_names(questions)}
    for path in corpus.images_path.glob("*"):
        if path.relative_to(corpus.folder).as_posix() not in used:
            path.unlink()
    if corpus.images_path.is_dir() and not used:
        corpus.images_path.rmdir()


def open_tokenizer(config: Config, *, folder: Path | None) -> PreTrainedTokenizerBase | None:
    """A model's tokenizer with the template of the recipe; None where one is trained here.

    Raises:
        CheckpointError: it cannot be used, or its template renders nothing or has no such switch.
    """
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    if isinstance(config.chat_template, Path):
        tokenizer.chat_template = config.chat_template.read_text(encoding="utf-8")
        check_template(tokenizer, config.chat_template)
    if config.enable_thinking != "default":
        template = tokenizer.get_chat_template()
        if SWITCH not in template:
            raise CheckpointError(
                f"{config.tokenizer}: its chat template has no switch {SWITCH!r}, so it cannot be "
                f"set to {config.enable_thinking!r}; leave it out"
            )
        value = "true" if config.enable_thinking == "on" else "false"
        tokenizer.chat_template = f"{{%- set {SWITCH} = {value} -%}}{template}"
    return tokenizer


def _drop_refused(
    records: Iterable[Record], *, tokenizer: PreTrainedTokenizerBase | None, log: RecordLog
) -> Iterator[Record]:
    """The records whose conversation the teacher's chat template takes, such as system turns."""
    if tokenizer is None:
        yield from records
        return
    template = chat_template_of(tokenizer)
    for record in records:
        try:
            render_record(template, record)
        except CheckpointError as error:
            log.drop_record(record, reason=REFUSED_BY_TEMPLATE, detail=str(error)[-SHOWN_CHARS:])
        else:
            yield record


def _make_tokenizer(
    config: Config,
    records: Sequence[Record],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    special: Sequence[str],
) -> int:
    """The number of tokens of the tokenizer now in the folder: the given one, or one trained."""
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    else:
        assert isinstance(config.tokenizer, TokenizerConfig)
        texts = (
            text
            for record in records
            for text in (record.system, *record.history, record.question, record.answer)
            if text
        )
        train_tokenizer(texts, folder=folder, config=config.tokenizer, special=special)
    return len(load_tokenizer(folder))
