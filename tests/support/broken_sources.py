"""Kinds of source to break, each with what prepares a corpus from it."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import yaml
from pyarrow import parquet

from limbeck.contracts.artifacts import Work
from limbeck.data.packs.load import load_pack
from limbeck.stages import prepare
from tests.support.mutations import break_file, change_value

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
