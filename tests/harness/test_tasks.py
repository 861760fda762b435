"""Tasks load from local files without a network, and what is wrong with one is said by name."""

import os

import huggingface_hub.constants
import pytest
from lm_eval.tasks._index import TaskIndex

from limbeck.contracts.errors import DataError, UnknownNameError
from limbeck.harness import tasks
from limbeck.harness.offline import offline
from limbeck.harness.tasks import load_tasks
from tests.support.harness_tasks import CHOICE, GENERATE, write_tasks


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path / "tasks", CHOICE, GENERATE)


@pytest.fixture(autouse=True)
def few_defaults(monkeypatch):
    """Of the library's 14,000 tasks, which take ten seconds to read, those of some folders."""
    all_files = TaskIndex._iter_yaml_files

    def list_some(root):
        names = {"arc", "arithmetic", "asdiv"} if (root / "arc").is_dir() else {"."}
        return [path for name in sorted(names) for path in all_files(root / name)]

    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(list_some))
    tasks._open_defaults.cache_clear()
    yield
    tasks._open_defaults.cache_clear()


def load(*names, folder, online=False):
    with offline():
        return load_tasks(names, folder=folder, online=online)


def test_data_lie_beside_the_task_or_where_the_command_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = folder.relative_to(tmp_path)
    assert len(load("tiny_choice", folder=relative)["tasks"]["tiny_choice"].eval_docs) == 5
    assert len(load("tiny_choice", folder=folder)["tasks"]["tiny_choice"].eval_docs) == 5
    (tmp_path / "documents.jsonl").write_bytes((folder / "documents.jsonl").read_bytes())
    (folder / "documents.jsonl").unlink()
    assert len(load("tiny_choice", folder=folder)["tasks"]["tiny_choice"].eval_docs) == 5
    (tmp_path / "documents.jsonl").unlink()
    with pytest.raises(DataError, match=r"tiny_choice\.yaml: .*'documents\.jsonl'.*neither"):
        load("tiny_choice", folder=folder)


def test_changed_data_are_read_again(folder):
    load("tiny_choice", folder=folder)
    path = folder / "documents.jsonl"
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    assert len(load("tiny_choice", folder=folder)["tasks"]["tiny_choice"].eval_docs) == 1


def test_patterns_and_groups_name_several_tasks(folder):
    assert set(load("tiny_*", folder=folder)["tasks"]) == {"tiny_choice", "tiny_generate"}
    (folder / "both.yaml").write_text("group: both\ntask: [tiny_choice, tiny_generate]\n")
    found = load("both", folder=folder)
    assert set(found["tasks"]) == {"tiny_choice", "tiny_generate"} and set(found["groups"])


def test_an_unknown_task_names_the_nearest(folder):
    with pytest.raises(UnknownNameError, match=r"did you mean 'tiny_choice'\? known:.*tiny_gene"):
        load("tiny_chioce", folder=folder)
    with pytest.raises(UnknownNameError, match="arc_easy") as caught:
        load("arc_eazy", folder=None)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("task: [broken", r"while parsing"),
        ("- a\n- b\n", "Expected YAML dict"),
        ("output_type: multiple_choice\n", "no key `task`"),
        ("include: missing.yaml\ntask: broken\n", "missing.yaml"),
    ],
)
def test_a_file_that_is_no_task_is_named(folder, text, fault):
    (folder / "broken.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"broken\.yaml: no task 'broken'.*{fault}"):
        load("broken", folder=folder)
    assert set(load("tiny_choice", folder=folder)["tasks"]) == {"tiny_choice"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"output_type": "multiple"}, "Got invalid output_type 'multiple'"),
        ({"test_split": "held_out"}, "held_out"),
        ({"doc_to_text": "{{question"}, "TemplateSyntaxError"),
        ({"doc_to_txt": "question"}, "doc_to_txt"),
        ({"dataset_kwargs": {"data_files": {"test": "broken.jsonl"}}}, "JSON|json"),
        ({"metric_list": [{"metric": "no_such_metric"}]}, "no_such_metric|None"),
    ],
)
def test_a_wrong_task_is_named_with_its_fault(folder, change, fault):
    (folder / "broken.jsonl").write_text('{"question": ')
    write_tasks(folder, CHOICE | {"task": "wrong"} | change)
    with pytest.raises(DataError, match=rf"wrong\.yaml: task 'wrong' cannot be loaded.*({fault})"):
        load("wrong", folder=folder)


def test_a_task_that_needs_a_download_is_refused(folder):
    with pytest.raises(DataError, match=r"'ai2_arc|allenai/ai2_arc.*nothing is downl.*--online"):
        load("arc_easy", folder=folder)


@pytest.mark.parametrize(
    ("make", "fault"),
    [(lambda path: None, "no such folder"), (lambda path: path.mkdir(), "no task file")],
)
def test_a_folder_without_tasks_is_refused(tmp_path, make, fault):
    make(tmp_path / "tasks")
    with pytest.raises(DataError, match=fault):
        load("a", folder=tmp_path / "tasks")


def test_nothing_is_called_while_offline(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    with offline():
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert before == huggingface_hub.constants.HF_HUB_OFFLINE
    assert "HF_HUB_OFFLINE" not in os.environ
