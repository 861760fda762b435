"""Compiling on demand: once, in the cache, and never a reason to fail."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from limbeck.models.moe.kernels import build, experts_op
from limbeck.models.moe.layers import Experts

SOURCES = [Path(build.__file__).with_name(name) for name in experts_op.SOURCES]
open_library = build.open_library.__wrapped__  # without what is remembered of this process


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_compiler(folder: Path, body: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_there_is_no_library_and_the_log_reports_it(
    own_cache, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert open_library(*experts_op.SOURCES) is None
    assert "PyTorch is: no C++ compiler" in caplog.text


def test_the_switch_turns_compiled_code_off_without_a_word(own_cache, monkeypatch, caplog):
    monkeypatch.setenv("LIMBECK_NATIVE", "0")
    assert open_library(*experts_op.SOURCES) is None
    assert not caplog.text and not own_cache.exists()


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, "exit 0"))
    assert open_library(*experts_op.SOURCES) is None
    assert "PyTorch is" in caplog.text


def test_without_the_library_pytorch_computes_the_same(monkeypatch):
    experts = Experts(num_experts=4, hidden=8, width=8, activation="silu")
    for item in experts.parameters():
        torch.nn.init.normal_(item)
    x, picked = torch.randn(30, 8), torch.randint(4, (30, 2))
    reference_temperature = experts(x, picked)
    monkeypatch.setattr(experts_op, "open_library", lambda *sources: None)
    assert not experts_op.is_available()
    torch.testing.assert_close(experts(x, picked), reference_temperature, atol=1e-5, rtol=1e-5)


def test_a_compiler_that_fails_leaves_nothing_and_gives_the_reason(
    own_cache, monkeypatch, tmp_path
):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, "echo no such flag >&2; exit 3"))
    with pytest.raises(build.BuildError, match=r"exit 3\nno such flag"):
        build.build(SOURCES)
    assert not list(own_cache.glob("*.so"))


def test_a_library_that_computes_wrongly_is_not_used(own_cache, monkeypatch, tmp_path):
    body = 'while [ "$1" != -o ]; do shift; done; echo "not a library" > "$2"'
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, body))
    with pytest.raises(build.BuildError, match="trying what was compiled"):
        build.build(SOURCES)
    assert not list(own_cache.glob("*.so"))


def test_the_key_follows_sources_and_compiler(tmp_path):
    first = build._key(SOURCES, "g++")
    assert first == build._key(SOURCES, "g++")
    assert first != build._key(SOURCES, "clang++")
    changed = tmp_path / "gemm.h"
    changed.write_text("// other\n", encoding="utf-8")
    assert first != build._key([SOURCES[0], changed], "g++")


@pytest.mark.skipif(not experts_op.is_available(), reason="no C++ compiler here")
def test_many_at_once_compile_once(own_cache, monkeypatch):
    calls = []
    compile_really = build._compile
    monkeypatch.setattr(
        build, "_compile", lambda *args: (calls.append(args), compile_really(*args))
    )
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(build.build, [SOURCES] * 4))
    assert len(set(libraries)) == 1 and len(calls) == 1
    assert [path.name for path in own_cache.iterdir() if path.suffix == ".so"] == [
        libraries[0].name
    ]
