"""What export refuses before anything runs names the package and the extra that brings it."""

from transformers import Qwen3Config

from limbeck.models.known import KnownModel
from limbeck.runtimes import known_inputs
from limbeck.runtimes.known_inputs import refuse_export


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    present = known_inputs.importlib.util.find_spec

    def find(name, *rest):
        return None if name == "xllamacpp" else present(name, *rest)

    monkeypatch.setattr(known_inputs.importlib.util, "find_spec", find)
    model = KnownModel("student", tokenizer=None, read=Qwen3Config)
    (refusal,) = refuse_export(model, runtime="gguf")
    assert refusal.field == "runtime"
    assert refusal.message == "gguf needs xllamacpp; install with `pip install 'limbeck[gguf]'`"
