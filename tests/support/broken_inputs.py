"""Kinds of input to break, and what uses each: sources, recipes, models, corpora, folders.

Left out: how a file is broken (`mutations.py`), and how often (`test_mutated_inputs.py`).
"""

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import yaml
from pyarrow import parquet

from limbeck.cli.show import describe_artifact, draw_artifact
from limbeck.contracts.answerer import alternate
from limbeck.contracts.artifacts import Work, find_damage, read_artifact
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
from limbeck.models.checkpoints import chat_template_of, load_model, load_tokenizer
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Needs
from limbeck.pipeline.check import check as check_recipe
from limbeck.runtimes import open_answerer
from limbeck.stages import prepare
from tests.support import tiny_recipe
from tests.support.mutations import TEXT, break_file, change_value

PAIRS = [
    ("高血压平时要注意什么", "建议您低盐饮食，规律服药，每天测量血压，必要时到医院复查。"),
    ("孩子发烧三十九度怎么办", "建议先物理降温，多喝温水，可以服用退烧药，并及时到医院就诊。"),
    ("膝盖上下楼梯疼是怎么了", "可能是骨性关节炎引起的疼痛，建议减少爬楼梯，必要时拍片检查。"),
    ("胃疼反酸吃什么药比较好", "反酸可以考虑奥美拉唑，建议先做胃镜明确原因，饮食要清淡。"),
    ("咳嗽两周了一直不好", "咳嗽超过两周建议拍胸片，检查血常规，排除肺炎，注意多喝水。"),
    ("皮肤起红疹子很痒", "考虑荨麻疹或者湿疹的可能，建议避免抓挠，可以口服氯雷他定。"),
]
Case = tuple[set[str], Callable[[], str]]
"""What a refusal has to name one of, and what uses the broken thing: 'works' or 'dropped'."""


def prepare_from(source: dict, folder: Path, *, pack: Path) -> str:
    """Run the whole stage on the source beside some facts; whether it dropped anything."""
    facts = {"forms_per_fact": 1, "recall_questions": 4, "choice_questions": 2}
    knowledge = {
        "kind": "knowledge",
        "facts": facts,
        "classification": {"train_sets": 1, "questions": 2},
        "refusals": 1,
        "refusal_questions": 1,
    }
    config = prepare.Config.model_validate(
        {
            "stage": "prepare",
            "pack": str(pack),
            "sources": [knowledge, source | {"max_dropped_ratio": 1}],
            "tokenizer": {"num_merges": 0},
        }
    )
    work = Work("corpus", folder / "corpus", folder / "state")
    work.folder.mkdir()
    prepare.run(config, work=work)
    card = json.loads((work.folder / "card.json").read_text(encoding="utf-8"))
    label = next(item.label for item in config.sources if item.kind != "knowledge")
    account = card["sources"][label]
    dropped = sum(account["dropped"].values())
    assert account["read"] == account["kept"] + dropped
    places = (work.folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["source"] == label for line in places) == dropped
    return "dropped" if dropped else "works"


def write_pairs(path: Path) -> None:
    rows = [{"question": question, "answer": answer} for question, answer in PAIRS]
    for index, row in enumerate(rows):
        row |= {"confidence": "0.95", "department": "心内科", "id": str(index)}
    if path.suffix == ".jsonl":
        rows[1] = {"instruction": PAIRS[1][0], "input": "", "output": PAIRS[1][1]}
        rows[2] = {
            "conversations": [
                {"from": "human", "value": PAIRS[2][0]},
                {"from": "gpt", "value": PAIRS[2][1]},
            ]
        }
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def tabular(kind: str, name: str) -> Callable[..., Case]:
    def make(rng: random.Random, folder: Path, pack: Path) -> Case:
        path = folder / name
        write_pairs(path)
        columns = {}
        if rng.random() < 0.15:
            columns = {rng.choice(("question", "answer")): rng.choice(("missing", "id", ""))}
            columns = {
                key: [value] if key == "question" else value for key, value in columns.items()
            }
        else:
            break_file(rng, path)
        source = {"kind": kind, "path": str(path), "columns": columns}
        return {name, "dropped.jsonl"}, lambda: prepare_from(source, folder, pack=pack)

    return make


def make_typed_table(rng: random.Random, folder: Path, pack: Path) -> Case:
    """A Parquet file whose columns hold something else than texts."""
    path = folder / "typed.parquet"
    odd = rng.choice(
        (
            [1, 2],
            [[1], [2]],
            [{"a": 1}, None],
            [b"\xff", b"a"],
            [True, None],
            [None, None],
            [float("nan"), 1.0],
        )
    )
    column = rng.choice(("question", "answer", "confidence", "department", "conversations"))
    table = {"question": ["高血压怎么办呢", "胃疼"], "answer": [PAIRS[0][1], PAIRS[3][1]]}
    parquet.write_table(pyarrow.table(table | {column: odd}), path)
    source = {"kind": "parquet", "path": str(path)}
    return {path.name, "dropped.jsonl"}, lambda: prepare_from(source, folder, pack=pack)


def make_triples(rng: random.Random, folder: Path, pack: Path) -> Case:
    (folder / "relation").mkdir()
    path = folder / "relation" / "symptom.txt"
    lines = [f"疾病 高血压{index} 症状 症状 头晕{index}" for index in range(20)]
    lines += [f"疾病 高血压{index} 科室 科室 心内科" for index in range(5)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    break_file(rng, path)
    source = {"kind": "triples", "path": str(folder / "relation")}
    if rng.random() < 0.1:
        source["relations"] = ["nothing"]
    places = {path.name, "relation", "dropped.jsonl"}
    return places, lambda: prepare_from(source, folder, pack=pack)


def make_labelled(rng: random.Random, folder: Path, pack: Path) -> Case:
    for name in ("train.json", "dev.json"):
        rows = [
            {
                "query": f"{name}的问题{index}怎么治",
                "label": "治疗方案" if index % 2 else "病情诊断",
            }
            for index in range(8)
        ]
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    path = folder / rng.choice(("train.json", "dev.json"))
    break_file(rng, path)
    source = {
        "kind": "labelled",
        "path": str(folder / "train.json"),
        "task": "intent",
        "evaluation_path": str(folder / "dev.json"),
        "form": "意图：{text}",
    }
    return {path.name, "dropped.jsonl"}, lambda: prepare_from(source, folder, pack=pack)


def make_pack(rng: random.Random, folder: Path, pack: Path) -> Case:
    copy = folder / "pack"
    shutil.copytree(pack, copy)
    path = rng.choice(sorted(copy.rglob("*.yaml")))
    if rng.random() < 0.6:
        value = change_value(rng, yaml.safe_load(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        break_file(rng, path)
    (folder / "more.jsonl").touch()
    write_pairs(folder / "more.jsonl")

    def use() -> str:
        load_pack(str(copy))
        return prepare_from(
            {"kind": "jsonl", "path": str(folder / "more.jsonl")}, folder, pack=copy
        )

    return {path.name, str(copy)}, use


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
        return {path.name, str(copy), "a prompt of"}, use

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
        for first in range(0, len(batches), 40):
            batch = batches.batch(batches.record_ids[first : first + 40].tolist())
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
