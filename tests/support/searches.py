"""A small corpus, and recipes that search the settings of a distillation on it."""

import yaml

from limbeck.contracts.records import Question, Record, write_jsonl
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from tests.support import artifacts

DEPARTMENTS = {"甲": "内科", "乙": "外科"}


NAMES = [first + second for first in DEPARTMENTS for second in "子丑寅卯辰巳午未申酉戌亥"]


MODEL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.2,
}


BATCHING = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_length": 32}


def make_records(names):
    return [
        Record(f"r{name}", f"{name}看什么科？", DEPARTMENTS[name[0]], f"g{name}", "test")
        for name in names
    ]


def make_corpus(folder):
    folder.mkdir(parents=True)
    artifacts.make_artifact(folder, "corpus")
    (folder / "records").mkdir()
    (folder / "questions").mkdir()
    parts = {"train": NAMES[::3] + NAMES[1::3], "validation": NAMES[2::3], "test": ["甲甲", "乙乙"]}
    for split, names in parts.items():
        write_jsonl(folder / "records" / f"{split}.jsonl", make_records(names))
    asked = Question("q1", "recall", "甲乙看什么科？", ("内科",), "single", group="gq")
    write_jsonl(folder / "questions" / "recall.jsonl", [asked])
    texts = [record.question + record.answer for record in make_records(NAMES)]
    train_tokenizer(texts, folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    return folder


def make_recipe(folder, corpus, *, tune, **student):
    entries = {
        "teacher": {
            "stage": "train",
            "corpus": str(corpus),
            "batching": BATCHING,
            "model": {"kind": "dense", "intermediate_size": 64, **MODEL},
            "objective": {"kind": "next_token"},
            "training": {"max_steps": 50, "learning_rate": 0.02, "warmup_steps": 2},
        },
        "student": {
            "stage": "distill",
            "teacher": "teacher",
            "corpus": str(corpus),
            "batching": BATCHING,
            "student": {"kind": "dense", "intermediate_size": 32, **MODEL},
            "objective": {"kind": "soft_target"},
            "training": {"max_steps": 18, "learning_rate": 0.02, "warmup_steps": 2},
        }
        | student,
    }
    if tune is not None:
        entries["tune"] = {"stage": "student", "trials": 4, "seed": 3} | tune
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(entries, allow_unicode=True, sort_keys=False))
    return path
