"""A process with every library imported that forks one real process for each command.

It listens at the socket that its argument names, for the workers of a test run; a fork of its own
serves each of them. It ends with its input, the forks with their worker.

A worker sends lines of JSON. `{"arguments": [...], "output": FILE}` is answered with the number of
a new process, which leads a group of its own; `{"wait": NUMBER, "seconds": S}` with its exit code,
or with null while it runs. Forking saves a killed run the seconds of importing torch; the runs
themselves are those of the command line. With `"call": "MODULE:FUNCTION"` the arguments are those
of a function, which no check of shapes wraps here.
"""

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch

from limbeck.cli.main import app
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.config import DenseModel
from tests.support.disk import without_fsync
from tests.support.forked_children import fork_children

PACKAGES = (
    *("pipeline", "stages", "training", "distillation", "data", "objectives", "pruning"),
    *("evaluation", "runtimes", "sizing", "models", "quantization"),
)
"""Whose modules are imported before anything is forked."""


def warm_up() -> None:
    gc.disable()  # there is no garbage yet
    without_fsync()
    torch.set_num_threads(1)
    for package in PACKAGES:
        import_below(f"limbeck.{package}")
    fork_children()
    small = DenseModel(
        kind="dense",
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=2,
        intermediate_size=4,
    )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(["a"], folder=Path(folder), config=TokenizerConfig())
        save_checkpoint(
            small.build(tokenizer=tokenizer, seed=0), tokenizer=tokenizer, folder=Path(folder)
        )
        load_model(Path(folder))


def import_below(package: str) -> None:
    """Import a package's modules, so that no fork imports them and the libraries they use."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)


def start(arguments: list[str], output: str, call: str) -> int:
    child = os.fork()
    if child:
        os.setpgid(child, child)
        return child
    os.setpgid(0, 0)
    # A shell starts background jobs deaf to Ctrl-C; a person's command is not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    code = 1
    try:
        module, _, name = call.partition(":")
        if call:
            getattr(importlib.import_module(module), name)(*arguments)
            code = 0
        else:
            app(arguments)
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def serve(worker: socket.socket) -> None:
    """Does what a worker commands, until it hangs up."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with worker.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            command = json.loads(line)
            if "wait" in command:
                answer = wait(command["wait"], command["seconds"])
            else:
                answer = start(command["arguments"], command["output"], command["call"])
            lines.write(f"{json.dumps(answer)}\n")
            lines.flush()


def main(path: Path) -> None:
    warm_up()
    # What is never collected again is not written to by a fork, and so not copied for it.
    gc.collect()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        print("ready", flush=True)  # noqa: T201
        # Not a thread that reads: a fork would find its locks taken for ever.
        while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
            worker, _ = door.accept()
            if os.fork() == 0:
                door.close()
                try:
                    serve(worker)
                finally:
                    os._exit(0)
            worker.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
