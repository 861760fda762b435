"""Kinds of input to break, and what uses each: sources, recipes, models, corpora, folders.

Left out: how a file is broken (`mutations.py`), and how often (`test_mutated_inputs.py`).
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from limbeck.cli.show import describe_artifact, draw_artifact
from limbeck.contracts.answerer import alternate
from limbeck.contracts.artifacts import find_damage, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.lineage import trace_lineage
from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.records import read_records
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.packs.load import load_pack
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.teachers.open import open_teacher
from limbeck.evaluation.answer_questions import read_questions
from limbeck.models.chat_tokens import chat_template_of
from limbeck.models.checkpoints import load_model
from limbeck.models.forward import KeptForward
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Needs
from limbeck.pipeline.check import check as check_recipe
from limbeck.runtimes import open_answerer
from tests.support import tiny_recipe
from tests.support.broken_sources import (
    Case,
    make_labelled,
    make_pack,
    make_triples,
    make_typed_table,
    prepare_from,
    tabular,
)
from tests.support.mutations import TEXT, break_file, change_value


def make_recipe(rng: random.Random, folder: Path, pack: Path) -> Case:
    """Text edits and wrong values, then everything that `limbeck check` does."""
    path = folder / "broken.yaml"
    text = tiny_recipe.RECIPE.read_bytes()
    kind = rng.random()
    if kind < 0.45:
        for _ in range(rng.choice((1, 1, 3))):
            text = rng.choice(TEXT)(rng, text)
        path.write_bytes(text)
    else:
        value = yaml.safe_load(text)
        for _ in range(rng.choice((1, 1, 4))):
            value = change_value(rng, value)
        path.write_text(
            yaml.safe_dump(value, allow_unicode=True), encoding="utf-8", errors="replace"
        )
    words = text.decode(errors="replace").split() or [""]
    overrides = []
    if rng.random() < 0.3:
        key = rng.choice(("corpus", "teacher.training", "student.objective", *words)).strip(
            ":{}[],"
        )
        overrides = [f"{key}.{rng.choice(words)}={rng.choice(words)}"]

    def use() -> str:
        check_recipe(load_recipe(path, overrides=overrides))
        return "works"

    return {str(path)}, use


def broken_entry(name: str, folder: Path, rng: random.Random) -> tuple[Path, Path]:
    """A copy of an artifact with one file broken: the folder, and the file."""
    copy = folder / name
    shutil.copytree(tiny_recipe.runs() / "tiny" / name, copy)
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    weights = [path for path in files if path.suffix in (".safetensors", ".onnx")]
    path = rng.choice([*files, *weights * 3])
    break_file(rng, path)
    return copy, path


def model(name: str) -> Callable[..., Case]:
    """A checkpoint or a bundle that is opened and asked."""

    def make(rng: random.Random, folder: Path, pack: Path) -> Case:
        copy, path = broken_entry(name, folder, rng)

        def use() -> str:
            answerer = open_answerer(copy, num_threads=1)
            answerer.answer(["高血压看什么科？"], max_new_tokens=2)
            answerer.score("高血压？", ["头晕", "骨科"])
            list(answerer.stream("胃炎", max_new_tokens=2))
            answerer.size()
            return "works"

        # A template may lose the question's place and repeat something else for ever.
        return {path.name, str(copy), "a prompt of", "chat template"}, use

    return make


def make_trained(rng: random.Random, folder: Path, pack: Path) -> Case:
    """A checkpoint as training starts from it."""
    copy, path = broken_entry(rng.choice(("teacher", "student", "int8")), folder, rng)

    def use() -> str:
        read_artifact(copy, kinds=("checkpoint",))
        tokenizer, started = load_tokenizer(copy), load_model(copy)
        corpus = tiny_recipe.runs() / "tiny" / "corpus"
        batch = Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig()).batch([0, 1])
        KeptForward(started)(batch, keep=batch.tokens)
        return "works"

    return {path.name, str(copy)}, use


def make_tokenizer(rng: random.Random, folder: Path, pack: Path) -> Case:
    copy = folder / "tokenizer"
    shutil.copytree(tiny_recipe.runs() / "tiny" / "corpus" / "tokenizer", copy)
    path = rng.choice(sorted(copy.iterdir()))
    break_file(rng, path)

    def use() -> str:
        tokenizer = load_tokenizer(copy)
        assert tokenizer(chat_template_of(tokenizer).render(alternate(["高血压"])))["input_ids"]
        return "works"

    return {path.name, str(copy)}, use


def make_signals(rng: random.Random, folder: Path, pack: Path) -> Case:
    copy, path = broken_entry("signals", folder, rng)
    corpus = read_artifact(tiny_recipe.runs() / "tiny" / "corpus")
    tokenizer = load_tokenizer(tiny_recipe.runs() / "tiny" / "student")
    batching = BatchingConfig(
        per_device_train_batch_size=4, gradient_accumulation_steps=2, max_length=64
    )
    batches = Batches(Corpus(corpus.path), tokenizer=tokenizer, config=batching)
    objective = SoftTarget.model_validate(
        {"kind": "soft_target", "matching": [{"student_layer": 1, "teacher_layer": 2}]}
    )

    def use() -> str:
        artifact = read_artifact(copy, kinds=("checkpoint", "signals"))
        teacher = open_teacher([artifact], corpus=corpus, batches=batches, needs=objective.needs())
        student = load_model(tiny_recipe.runs() / "tiny" / "student")
        loss = objective.build(ObjectiveContext(student, teacher=teacher))
        for first in range(0, len(batches.records), 40):
            batch = batches.batch(batches.records.ids[first : first + 40].tolist())
            loss(KeptForward(student), batch)
        return "works"

    return {path.name, str(copy)}, use


def make_corpus(rng: random.Random, folder: Path, pack: Path) -> Case:
    copy = folder / "corpus"
    shutil.copytree(tiny_recipe.runs() / "tiny" / "corpus", copy)
    folders = ("records", "questions", "tokenizer")
    path = rng.choice([item for name in folders for item in sorted((copy / name).iterdir())])
    break_file(rng, path)

    def use() -> str:
        read_artifact(copy, kinds=("corpus",))
        tokenizer = load_tokenizer(copy / "tokenizer")
        for split in ("train", "validation", "test"):
            Batches(Corpus(copy), tokenizer=tokenizer, config=BatchingConfig(), split=split)(0)
        found = read_questions(Corpus(copy), max_questions=3)
        path = copy / "records" / "train.jsonl"
        check_leaks(read_records(path), held_out=found.questions, path=path)
        return "works"

    return {path.name, str(copy)}, use


def make_manifest(rng: random.Random, folder: Path, pack: Path) -> Case:
    copy = folder / "student"
    shutil.copytree(tiny_recipe.runs() / "tiny" / "student", copy)
    break_file(rng, copy / "manifest.json")

    def use() -> str:
        artifact = read_artifact(copy)
        (ancestry,) = trace_lineage([artifact])
        describe_artifact(artifact, ancestry)
        draw_artifact(artifact, ancestry)
        return "dropped" if find_damage(artifact) else "works"

    return {str(copy)}, use


def make_missing(rng: random.Random, folder: Path, pack: Path) -> Case:
    """A folder that is not there, or is a file, wherever one is named."""
    path = folder / "absent"
    if rng.random() < 0.4:
        path.write_text("no folder")
    elif rng.random() < 0.5:
        path.mkdir()
    tokenizer = load_tokenizer(tiny_recipe.runs() / "tiny" / "corpus" / "tokenizer")
    corpus = read_artifact(tiny_recipe.runs() / "tiny" / "corpus")
    uses: list[Callable[[], object]] = [
        lambda: open_answerer(path, num_threads=1),
        lambda: load_model(path),
        lambda: load_tokenizer(path),
        lambda: load_pack(str(path)),
        lambda: read_artifact(path),
        lambda: Batches(Corpus(path), tokenizer=tokenizer, config=BatchingConfig()),
        lambda: read_questions(Corpus(path), max_questions=1),
        lambda: load_recipe(path),
        *(
            lambda kind=kind: prepare_from({"kind": kind, "path": str(path)}, folder, pack=pack)
            for kind in ("jsonl", "csv", "parquet", "triples")
        ),
        lambda: prepare_from({"kind": "hub", "dataset": str(path)}, folder, pack=pack),
        lambda: open_teacher(
            [type(corpus)(path, corpus.manifest)],
            corpus=corpus,
            batches=Batches(Corpus(corpus.path), tokenizer=tokenizer, config=BatchingConfig()),
            needs=Needs(temperature=1.0),
        ),
    ]
    use = rng.choice(uses)

    def used() -> str:
        use()
        return "worked without its folder"

    return {str(path)}, used


KINDS: dict[str, tuple[int, Callable[..., Case]]] = {
    "jsonl": (50, tabular("jsonl", "pairs.jsonl")),
    "json": (20, tabular("jsonl", "pairs.json")),
    "csv": (40, tabular("csv", "pairs.csv")),
    "parquet": (20, tabular("parquet", "pairs.parquet")),
    "typed parquet": (10, make_typed_table),
    "triples": (30, make_triples),
    "labelled": (25, make_labelled),
    "pack": (40, make_pack),
    "recipe": (110, make_recipe),
    "teacher": (20, model("teacher")),
    "student": (15, model("student")),
    "int8": (15, model("int8")),
    "bundle": (25, model("bundle")),
    "trained": (20, make_trained),
    "tokenizer": (15, make_tokenizer),
    "signals": (20, make_signals),
    "corpus": (30, make_corpus),
    "manifest": (15, make_manifest),
    "missing folder": (25, make_missing),
}
