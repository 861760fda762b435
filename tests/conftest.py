import os

# One thread: bit-for-bit repeatable, and no spinning on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import gc
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from tests.support import tiny_recipe, type_checks
from tests.support.disk import without_fsync

gc.disable()  # until all is imported: there is no garbage yet, and much to look through
type_checks.install()
without_fsync()
# No time limit, and the same examples each time; LIMBECK_TEST_EXAMPLES hunts for more of them,
# together with `-o faulthandler_timeout=0`.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=int(os.environ.get("LIMBECK_TEST_EXAMPLES", "100")),
)
hypothesis.settings.load_profile("repeatable")

WHOLE_RUNS = (
    "invariants",
    "recipes",
    "stages",
    "cli",
    "tuning",
    "pipeline",
    "training",
    "drafting",
)
"""Folders whose files take long: begun first, so that no worker ends long before another."""

FACTS = {
    "高血压": ("头晕、心悸", "心血管内科"),
    "哮喘": ("喘息、咳嗽", "呼吸内科"),
    "胃炎": ("腹痛、恶心", "消化内科"),
    "湿疹": ("皮疹、瘙痒", "皮肤科"),
}


def pytest_configure(config: pytest.Config) -> None:
    """One folder for all workers; torch, slow to load, for those that run tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        stack = ExitStack()
        stack.enter_context(tiny_recipe.make_folder())
        config.add_cleanup(stack.close)
        if config.getoption("numprocesses", None):
            return
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    places = {name: place for place, name in enumerate(WHOLE_RUNS)}

    def place(item: pytest.Item) -> int:
        return places.get(item.path.relative_to(root).parts[0], len(places))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.enable()
    keep_out_of_garbage_collection()


def pytest_runtest_setup() -> None:
    type_checks.begin_test()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and nextitem.path != item.path:
        keep_out_of_garbage_collection()


def keep_out_of_garbage_collection() -> None:
    """Has no later collection look at what is there: modules and what lasts for the session.

    Accelerate collects garbage after each training; among half a million objects that takes longer
    than a tiny model trains.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A hand-made corpus folder of a few records, with its tokenizer."""
    from limbeck.contracts.records import Record, write_jsonl
    from limbeck.data.corpus.config import TokenizerConfig
    from limbeck.data.corpus.train_tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("corpus")
    (folder / "records").mkdir()
    records = []
    for name, (symptoms, specialty) in FACTS.items():
        for form, (question, answer) in enumerate(
            [
                (f"{name}有哪些症状？", symptoms),
                (f"{name}看什么科？", specialty),
                ("", f"{name}的症状包括{symptoms}。"),
            ]
        ):
            key = f"{name}-{form}"
            records.append(Record(key, question, answer, key, "test", specialty))
    for split in ("train", "validation", "test"):
        write_jsonl(folder / "records" / f"{split}.jsonl", records)
    texts = [record.question + record.answer for record in records]
    train_tokenizer(texts, folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    return folder


@pytest.fixture(scope="session")
def tokenizer(corpus):
    from limbeck.models.tokenizers import load_tokenizer

    return load_tokenizer(corpus / "tokenizer")


@pytest.fixture(scope="session")
def pack():
    """The medical one."""
    from tests.support.medical_pack import medical_pack

    return medical_pack()


@pytest.fixture(scope="session")
def moe_config():
    from limbeck.models.config import MoeModel

    return MoeModel(
        kind="moe",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        initializer_range=0.2,
    )


@pytest.fixture(scope="session")
def dense_config():
    from limbeck.models.config import DenseModel

    return DenseModel(
        kind="dense",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        initializer_range=0.2,
    )


@pytest.fixture
def moe(moe_config, tokenizer):
    return moe_config.build(tokenizer=tokenizer, seed=0).eval()


@pytest.fixture
def dense(dense_config, tokenizer):
    return dense_config.build(tokenizer=tokenizer, seed=1).eval()
