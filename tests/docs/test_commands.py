"""Every command of the README and of the docs runs, or is parsed by the program that it calls.

A command runs in a folder that looks like a clone in which the pages' recipes were run: `runs/demo`
and `runs/mine` hold the artifacts of the tiny recipe, `mine.jsonl` and `models/` a small file and a
tiny teacher. What would train, load a large model or need a network is in `PARSED` and is read by
the real command line (every option, every argument), with its recipe and its `--set` checked.
"""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest
import typer
from accelerate.commands.launch import launch_command_parser
from typer.testing import CliRunner

from limbeck.cli.main import app
from tests.support import documentation, tiny_recipe
from tests.support.documentation import PAGES, ROOT
from tests.support.drafted_files import draw, lines, pictured
from tests.support.published_checkpoints import STUDENTS, make_checkpoint
from tests.support.running_service import Running

COMMAND = typer.main.get_command(app)
COMMANDS = {page: documentation.read_commands(page) for page in PAGES}
TRAINS = "trains for minutes; the tests run the same stages from tests/recipes and tests/stages"
PARSED = {
    "limbeck run": TRAINS,
    "limbeck tune": TRAINS,
    "limbeck evaluate": "needs the extra `harness` (tests/harness), or a server as a judge",
    "limbeck ask runs/chest-xray/": "needs a model that was trained on images (tests/stages)",
    "limbeck plan recipes/reference-size.yaml": "plans 1.55 T parameters: 8 s (tests/planning)",
    "limbeck serve": "runs until it is stopped (tests/serving)",
    "limbeck journal": "needs a service that has answered (tests/cli/test_journal.py)",
    "accelerate launch": "starts several processes that train (tests/training)",
    "make": "installs everything, then runs for minutes",
    "pip install": "needs a network",
    "python benchmarks/": "measures for minutes",
    "python -m venv": "installs a peer beside us, by a network",
    "python -c": "writes into the peer's environment",
    "schemathesis": "asks a service for minutes",
    "locust": "asks a service for a minute",
    "guidellm": "asks a service for a minute",
}
"""Starts of commands that are parsed only, and why."""
MADE_LATER = {"runs/demo/tune/winning.yaml": "`limbeck tune` writes it"}
NOT_HERE = "which does not exist"
"""A fault of a recipe whose data or models are not part of the project."""
STANDS_FOR = ("demo", "mine")
"""Runs of which the pages speak; here they are the tiny recipe's."""


def is_parsed_only(command):
    return any(command.text.startswith(start) for start in PARSED)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like the one that a reader of the pages stands in."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("recipes", "limbeck", "Makefile", "constraints.txt", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    runs = folder / "runs"
    shutil.copytree(tiny_recipe.runs(), runs, symlinks=True)
    for name in STANDS_FOR:
        shutil.copytree(runs / "tiny", runs / name, symlinks=True)
    for name in ("SmolLM2-135M-Instruct", "Qwen3-0.6B"):
        make_checkpoint(folder / "models" / name, build=STUDENTS["llama"])
    rows = [
        {"question": f"How is clause {number} of the contract ended?", "answer": answer}
        for number, answer in enumerate(["By notice of 30 days.", "By payment in full."] * 40)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw(folder / "films", 12)
    (folder / "chats.jsonl").write_text(lines(pictured(12)))
    return folder


@pytest.fixture
def invoke(clone, monkeypatch):
    monkeypatch.chdir(clone)
    for name, value in {"COLUMNS": "200", "NO_COLOR": "1", "LIMBECK_TESTBED": str(clone)}.items():
        monkeypatch.setenv(name, value)
    (clone / "mine.yaml").unlink(missing_ok=True)

    def invoke(*words):
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0, f"{words}: {result.output}"

    return invoke


def parse(words):
    """The last command's context: every word was an option or an argument that it has."""
    command, rest = COMMAND, list(words)
    while isinstance(command, typer.core.TyperGroup):
        command = command.commands[rest.pop(0)]
    return command.make_context(command.name, rest)


def parse_limbeck(words):
    """Parse a command of ours, and check the recipe that it names with its changes."""
    values = parse(words).params
    recipe = str(values.get("recipe", ""))
    if recipe and recipe not in MADE_LATER:
        changes = [word for item in values["overrides"] for word in ("--set", item)]
        result = CliRunner().invoke(app, ["check", recipe, "--json", *changes])
        faults = [item["message"] for item in json.loads(result.output)["faults"]]
        assert [item for item in faults if NOT_HERE not in item] == [], recipe


def parse_accelerate(words):
    parsed = launch_command_parser().parse_args(list(words[1:]))
    assert Path(parsed.config_file).exists()
    assert (parsed.module, parsed.training_script) == (True, "limbeck.cli")
    parse_limbeck(parsed.training_script_args)


def parse_make(words):
    found = subprocess.run(["make", "--dry-run", *words[1:]], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def parse_pip(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([a-z,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def parse_python(words):
    """A script of ours exists and has every option; what is not a script runs nowhere."""
    script = ROOT / words[1]
    if words[1].endswith(".py"):
        options = [word for word in words[2:] if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in script.read_text()] == []


def parse_schemathesis(words):
    assert (ROOT / words[words.index("--config-file") + 1]).exists()


def parse_locust(words):
    assert (ROOT / words[words.index("-f") + 1]).exists()


def parse_guidellm(words):
    """A program of others, whose settings are its own."""
    assert words[1] == "run"


def walk(command, name="limbeck"):
    """Every command and group below, with its name."""
    yield name, command
    if isinstance(command, typer.core.TyperGroup):
        for key, item in command.commands.items():
            yield from walk(item, f"{name} {key}")


PARSERS = {
    "make": parse_make,
    "pip": parse_pip,
    "python": parse_python,
    "schemathesis": parse_schemathesis,
    "locust": parse_locust,
    "guidellm": parse_guidellm,
}
"""By program; `limbeck` and `accelerate` have parsers of their own."""


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*item, id=item[0]) for item in walk(COMMAND)]
)
def test_every_help_has_examples_that_parse(name, command):
    examples = re.findall(r"^ *(limbeck .*)$", command.help, flags=re.MULTILINE)
    assert examples or isinstance(command, typer.core.TyperGroup)
    for line in examples:
        assert line.startswith(name)
        parse(shlex.split(line)[1:])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if COMMANDS[page]], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_run_or_are_parsed(page, invoke):
    for command in COMMANDS[page]:
        program, *words = command.words
        if not is_parsed_only(command):
            assert program == "limbeck", f"{command.text}: runs nowhere; add it to PARSED"
            invoke(*words)
        elif program == "limbeck":
            parse_limbeck(words)
        elif program == "accelerate":
            parse_accelerate(words)
        else:
            PARSERS[program](command.words)


EXTENSIONS = ROOT / "docs" / "extend"
"""Its Python is tested page by page in `tests/extend`."""
SERVED = "http://127.0.0.1:8000"
"""Where `limbeck serve` listens by default."""
SNIPPETS = [
    block
    for page in PAGES
    if not page.is_relative_to(EXTENSIONS)
    for block in documentation.read_blocks(page)
    if block.language == "python"
]


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.page.stem)
def test_python_snippets_run(block, clone, monkeypatch):
    """What asks a service asks one of the tiny bundle, here at a free port."""
    monkeypatch.chdir(clone)
    with ExitStack() as stack:
        text = block.text
        if SERVED in text:
            service = Running(tiny_recipe.runs() / "tiny" / "bundle")
            text = text.replace(SERVED, stack.enter_context(service).url)
        exec(compile(text, str(block.page), "exec"), {})


def test_the_list_of_parsed_commands_is_short_of_nothing():
    """Each entry still occurs on some page."""
    texts = [command.text for commands in COMMANDS.values() for command in commands]
    assert [start for start in PARSED if not any(text.startswith(start) for text in texts)] == []
    assert [name for name in MADE_LATER if not any(name in text for text in texts)] == []


def test_an_unknown_option_is_found():
    with pytest.raises(Exception, match="No such option"):
        parse(["run", "recipes/demo.yaml", "--steps", "3"])
