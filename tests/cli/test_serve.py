"""`limbeck serve` and `limbeck keys`: a real process that is asked, told to end, and misused."""

import hashlib
import json
import re
import shutil
import signal
import socket

import httpx2 as httpx
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.cli.served_models import find_router
from limbeck.contracts.artifacts import read_artifact
from limbeck.serving.config import ServeConfig
from tests.support import tiny_recipe
from tests.support.gguf_files import write_llama
from tests.support.running_service import serve

TINY = tiny_recipe.RECIPE
CLOUD = {"kind": "openai_http", "url": "https://api.example.com/v1"}
TIERS = [{"name": "mobile", "model": "bundle"}]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_recipe_that_was_run_is_served_until_it_is_ended(tmp_path):
    options = ("--runs", tiny_recipe.runs(), "--journal", tmp_path / "journal.sqlite")
    with serve(TINY, *options, folder=tmp_path) as (process, url, _):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        page = httpx.get(url, timeout=60)
        assert page.status_code == 200 and "Limbeck" in page.text
        for name in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
            assert httpx.get(url.rstrip("/") + name, timeout=60).status_code == 200
        asked = {"model": "auto", "messages": [{"role": "user", "content": "你好"}]}
        found = httpx.post(url + "v1/chat/completions", json=asked, timeout=60)
        assert found.status_code == 200
        assert found.json()["limbeck"]["tier"] == "bundle"
        said = {
            "id": found.json()["id"],
            "rating": "down",
            "corrected": "我叫王小明，电话13812345678",
        }
        assert httpx.post(url + "v1/feedback", json=said, timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    shown = invoke("journal", "show", "--journal", tmp_path / "journal.sqlite", "--json")
    assert "你好" in shown.output and "down" in shown.output
    assert "13812345678" not in shown.output and "王小明" not in shown.output
    assert invoke("journal", "verify", "--journal", tmp_path / "journal.sqlite").exit_code == 0


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_gguf_file_is_served_and_llama_cpp_ends_with_the_service(gguf, number, tmp_path):
    with serve(gguf, "--journal", "none", folder=tmp_path) as (process, url, _):
        asked = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        found = httpx.post(url + "v1/chat/completions", json=asked, timeout=60).json()
        assert found["limbeck"]["tier"] == "tiny"
        assert found["limbeck"]["model_key"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 1
        process.send_signal(number)
        assert process.wait(60) == (0 if number == signal.SIGTERM else -number)
        assert psutil.wait_procs(children, timeout=60)[1] == []


def test_check_finds_a_gguf_file_and_what_opens_it(tmp_path, gguf, monkeypatch):
    serve = {"tiers": [{"name": "a", "model": str(gguf)}]}
    assert invoke("check", write_recipe(tmp_path, serve)).exit_code == 0
    monkeypatch.setattr("limbeck.cli.served_models.find_spec", lambda name: None)
    found = invoke("check", write_recipe(tmp_path, serve))
    assert found.exit_code == 1 and "pip install 'limbeck[gguf]'" in found.output.replace("\n", " ")
    monkeypatch.undo()
    serve = {"tiers": [{"name": "a", "model": str(tmp_path / "lost.gguf")}]}
    assert "does not exist" in invoke("check", write_recipe(tmp_path, serve)).output
    (tmp_path / "text.gguf").write_text("no model")
    found = invoke("serve", tmp_path / "text.gguf", "--journal", "none")
    assert found.exit_code == 1 and "is no GGUF file" in found.output.replace("\n", " ")


def test_another_address_needs_keys():
    found = invoke("serve", TINY, "--runs", tiny_recipe.runs(), "--host", "0.0.0.0", "--port", 0)
    assert found.exit_code == 1
    assert "limbeck keys NAME" in found.output


def test_a_format_of_the_log_that_is_none_is_named():
    assert "did you mean 'json'" in invoke("serve", TINY, "--log", "jsno").output


def test_what_was_not_made_is_named(tmp_path):
    found = invoke("serve", TINY, "--runs", tmp_path, "--port", 0)
    assert found.exit_code == 1
    assert "make it with `limbeck run`" in found.output


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path):
    path = tmp_path / "keys.json"
    found = invoke("keys", "ward-7", "--file", path, "--scope", "chat")
    key = found.output.strip()
    assert found.exit_code == 0 and key.startswith("lmb-")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert "already" in invoke("keys", "ward-7", "--file", path).output
    assert "did you mean 'chat'" in invoke("keys", "x", "--file", path, "--scope", "chta").output


@pytest.mark.parametrize(
    ("serve", "named"),
    [
        ({"tiers": []}, "serve.tiers"),
        ({"tiers": [{"name": "auto", "model": "bundle"}]}, "router's name"),
        ({"tiers": [{"name": "a", "model": "corpus"}]}, "makes a corpus"),
        ({"tiers": [{"name": "a", "model": "bundle"}] * 2}, "two are called 'a'"),
        ({"tires": []}, "tires"),
        ({"tiers": [{"name": "facts", "model": "bundle"}]}, "the name of stored facts"),
        ({"tiers": TIERS, "facts": {"source": "bundle"}}, "makes a bundle; name a corpus"),
        ({"tiers": TIERS, "facts": {"source": "corpsu"}}, "no folder with a facts.json"),
        ({"tiers": TIERS, "facts": {"corpus": "corpus"}}, "facts.corpus"),
        ({"tiers": [{"name": "a", "model": "bundle", "canary": {"share": 0.1}}]}, "no candidate"),
        ({"tiers": [{"name": "a", "model": "bundle", "canary": {"share": 2}}]}, "canary.share"),
        ({"tiers": [{"name": "a", "model": "m", "place": "openai_http"}]}, "url"),
        ({"tiers": [{"name": "a", "model": "m", "place": "openai_htp"}]}, "'openai_http'"),
        ({"tiers": [{"name": "a", "model": "m", "place": {**CLOUD, "key": "x"}}]}, "unknown key"),
        ({"tiers": [{"name": "a", "model": "m", "place": CLOUD, "num_threads": 2}]}, "num_threads"),
    ],
)
def test_check_names_what_serve_would_refuse(tmp_path, serve, named):
    found = invoke("check", write_recipe(tmp_path, serve))
    assert found.exit_code == 1
    assert named in found.output.replace("\n", " ")


def write_recipe(folder, serve):
    path = folder / "mine.yaml"
    content = yaml.safe_load(TINY.read_text(encoding="utf-8")) | {"serve": serve}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_a_model_at_another_server_needs_no_entry_of_its_name(tmp_path):
    tiers = [{"name": "a", "model": "corpus", "place": CLOUD}]
    assert invoke("check", write_recipe(tmp_path, {"tiers": tiers})).exit_code == 0


def test_a_key_that_is_not_set_and_a_key_in_the_recipe_are_refused(tmp_path, monkeypatch):
    place = CLOUD | {"key_variable": "CLOUD_KEY"}
    recipe = write_recipe(
        tmp_path, {"tiers": [{"name": "a", "model": "sk-secret", "place": place}]}
    )
    monkeypatch.delenv("CLOUD_KEY", raising=False)
    found = invoke("serve", recipe, "--port", 0, "--journal", "none")
    assert found.exit_code == 1
    assert "'CLOUD_KEY', which key_variable names, is not set" in found.output.replace("\n", " ")
    monkeypatch.setenv("CLOUD_KEY", "sk-secret")
    found = invoke("serve", recipe, "--port", 0, "--journal", "none")
    assert found.exit_code == 1 and "stands in the recipe" in found.output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_tier_that_is_the_service_itself_is_refused(tmp_path, host):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = CLOUD | {"url": f"http://{host}:{port}/v1"}
    recipe = write_recipe(tmp_path, {"tiers": [{"name": "a", "model": "m", "place": place}]})
    found = invoke("serve", recipe, "--port", port, "--journal", "none")
    assert found.exit_code == 1
    assert "is this service itself" in found.output.replace("\n", " ")


ROUTER = {"stage": "route", "tiers": ["teacher", "bundle"], "corpus": "corpus"}


def write_routed(folder, **serve):
    tiers = [{"name": name, "model": name} for name in ("teacher", "bundle")]
    path = write_recipe(folder, {"tiers": tiers, "router": "router"} | serve)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | {"router": ROUTER}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_a_router_between_the_tiers_is_fitted_and_served(tmp_path):
    """The tiny corpus holds too few questions to promise anything, which the run says."""
    assert invoke("check", write_routed(tmp_path)).exit_code == 0
    runs = tmp_path / "runs"
    shutil.copytree(tiny_recipe.runs(), runs, symlinks=True)
    (runs / "tiny").rename(runs / "mine")
    found = invoke("run", tmp_path / "mine.yaml", "--runs", runs, "--until", "router")
    assert found.exit_code == 0, found.output
    router = find_router(ServeConfig.model_validate(SERVED), root=runs / "mine")
    assert "expected at least 20" in router.file.promise.describe()
    keys = [read_artifact(runs / "mine" / name).manifest.content_hash for name in ROUTER["tiers"]]
    assert router.knows(keys)


SERVED = {"tiers": [{"name": "a", "model": "bundle"}], "router": "router"}


@pytest.mark.parametrize(
    ("serve", "named"),
    [
        ({"router": "bundle"}, "'bundle' makes a bundle; name an entry of stage `route`"),
        ({"tiers": [{"name": "a", "model": "bundle"}]}, "a router between teacher, bundle"),
        (
            {"tiers": [{"name": name, "model": name} for name in ("bundle", "teacher")]},
            "the tiers are bundle, teacher; name the same models in the same order",
        ),
    ],
)
def test_a_router_of_other_tiers_is_refused(tmp_path, serve, named):
    found = invoke("check", write_routed(tmp_path, **serve))
    assert found.exit_code == 1
    assert named in " ".join(found.output.split())


def test_a_router_that_was_not_made_is_named(tmp_path):
    tiers = [{"name": name, "model": name} for name in ("teacher", "bundle")]
    recipe = write_recipe(tmp_path, {"tiers": tiers, "router": "elsewhere"})
    runs = tmp_path / "runs"
    shutil.copytree(tiny_recipe.runs(), runs, symlinks=True)
    (runs / "tiny").rename(runs / "mine")
    found = invoke("serve", recipe, "--runs", runs, "--port", 0, "--journal", "none")
    assert found.exit_code == 1 and "elsewhere" in found.output


def test_facts_need_a_pack_that_defines_how_they_are_asked_for(tmp_path):
    pack = tiny_recipe.ROOT / "tests" / "support" / "packs" / "contracts_law"
    corpus = {"stage": "prepare", "pack": str(pack), "sources": [{"kind": "knowledge"}]}
    labelled = {"stage": "label", "corpus": "law", "teacher": "bundle"}
    path = write_recipe(tmp_path, {"tiers": TIERS, "facts": {"source": "labelled"}})
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))

    def check(**entries):
        path.write_text(yaml.safe_dump(recipe | entries, allow_unicode=True), encoding="utf-8")
        return invoke("check", path)

    found = check(law=corpus, labelled=labelled)
    assert found.exit_code == 1
    assert "'law' has no pack with a wording.yaml" in found.output.replace("\n", " ")
    found = check(law=corpus, labelled=labelled | {"corpus": "corpus"})
    assert found.exit_code == 0, found.output


def test_a_corpus_without_its_facts_is_not_served(tmp_path):
    """One that an older version made, or whose file was deleted."""
    runs = tiny_recipe.copy_runs(tmp_path, entries=("corpus", "bundle"))
    (runs / "tiny" / "corpus" / "facts.json").unlink()
    settings = {"tiers": TIERS, "facts": {"source": "corpus"}}
    recipe = write_recipe(tmp_path, settings).rename(tmp_path / "tiny.yaml")
    found = invoke("serve", recipe, "--runs", runs, "--port", 0, "--journal", "none")
    assert found.exit_code == 1
    assert "holds no facts.json" in found.output.replace("\n", " ")


def test_a_recipe_serves_the_facts_of_its_corpus_and_keeps_what_they_answered(tmp_path):
    settings = {"tiers": TIERS, "facts": {"source": "corpus"}}
    recipe = write_recipe(tmp_path, settings).rename(tmp_path / "tiny.yaml")
    assert invoke("check", recipe).exit_code == 0
    journal = tmp_path / "journal.sqlite"
    options = ("--runs", tiny_recipe.runs(), "--journal", journal)
    with serve(recipe, *options, folder=tmp_path) as (process, url, errors):
        turns = [{"role": "user", "content": "请问糖尿病挂什么科？"}]
        asked = {"model": "auto", "messages": turns}
        found = httpx.post(url + "v1/chat/completions", json=asked, timeout=60).json()
        assert found["limbeck"]["source"] == "medical:糖尿病|specialty"
        assert found["choices"][0]["message"]["content"].startswith("内分泌科\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "facts: 1224 of medical" in errors.read_text()
    shown = invoke("journal", "show", "--journal", journal, "--json")
    row = json.loads(shown.output)[0]["exchange"]
    assert (row["tier"], row["route_reason"]) == ("facts", "fact")
    assert row["is_machine_made"] is False
    assert row["model_key"] == found["limbeck"]["model_key"]
