"""Export: a bundle comes out when it answers as its checkpoint, an error when not."""

import contextlib
import dataclasses

import numpy as np
import pytest

from limbeck.contracts.answer_policy import AnswerPolicy, PolicyFile, read_policy
from limbeck.contracts.artifacts import Artifact, Work, hash_files, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ParityError
from limbeck.contracts.parity import LogitDifference
from limbeck.contracts.records import Record
from limbeck.contracts.registry import FORMATS
from limbeck.models.checkpoints import save_checkpoint
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import convert
from limbeck.runtimes import open_answerer, open_runtime
from limbeck.runtimes.bundle import read_bundle
from limbeck.runtimes.onnx import decoder
from limbeck.stages import export
from tests.support.tiny_checkpoints import make_checkpoint


def make_work(folder, checkpoint, **inputs):
    out, state = folder / "out", folder / "state"
    for path in (out, state):
        path.mkdir(parents=True, exist_ok=True)
    return Work("bundle", out, state, {"checkpoint": (read_artifact(checkpoint),), **inputs})


@pytest.fixture(params=["float32", "int8"])
def checkpoint(request, dense_config, tokenizer, tmp_path):
    dense = dense_config.replace(head_dim=16).build(tokenizer=tokenizer, seed=1)
    model = convert(dense, number_format=Int8(kind="int8")) if request.param == "int8" else dense
    save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def configure(**fields):
    return export.Config(stage="export", checkpoint="student", **fields)


def test_writes_a_bundle_with_its_parity(checkpoint, tmp_path):
    work = make_work(tmp_path, checkpoint)
    metrics = export.run(configure(), work=work)
    bundle = read_bundle(work.folder)
    assert bundle.parity != "not measured"
    assert metrics["parity"] == bundle.parity.model_dump()
    assert metrics["format"] == bundle.format
    assert bundle.parity.num_prompts == 16 and bundle.parity.num_positions > 200
    assert bundle.parity.argmax_agreement_ratio > 0.95
    assert open_answerer(work.folder, num_threads=1).answer(["高血压"], max_new_tokens=2)
    again = make_work(tmp_path / "again", checkpoint)
    export.run(configure(), work=again)
    assert hash_files(again.folder) == hash_files(work.folder)


def test_compares_on_the_questions_of_a_corpus(checkpoint, corpus, tmp_path):
    manifest = read_artifact(checkpoint).manifest.replace(kind="corpus")
    work = make_work(tmp_path, checkpoint, corpus=(Artifact(corpus, manifest),))
    metrics = export.run(configure(corpus="corpus", num_prompts=5), work=work)
    assert metrics["parity"]["num_prompts"] == 5


def test_answers_are_compared_where_asked(checkpoint, corpus, tmp_path):
    manifest = read_artifact(checkpoint).manifest.replace(kind="corpus")
    work = make_work(tmp_path, checkpoint, corpus=(Artifact(corpus, manifest),))
    config = configure(
        corpus="corpus", num_prompts=1, num_answers=4, calibration={"max_new_tokens": 3}
    )
    parity = export.run(config, work=work)["parity"]
    assert parity["num_answers"] == 4 and parity["equal_answers_ratio"] >= 0.75
    with pytest.raises(ValueError, match="name one as `corpus`"):
        configure(num_answers=4)


@pytest.mark.parametrize("number_format", ["float32", "int8"])
def test_a_gguf_bundle_is_compared_as_any_other(number_format, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", "qwen3", number_format)
    work = make_work(tmp_path, tmp_path / "checkpoint")
    metrics = export.run(configure(runtime="gguf"), work=work)
    parity, bundle = metrics["parity"], read_bundle(tmp_path / "out")
    assert bundle.runtime == "gguf" and metrics["format"] == bundle.format
    if bundle.format == "float32":
        assert parity["measure"] == "max_logit_difference / max_logit"
        assert parity["max_logit_difference"] < 1e-5 * max(parity["max_logit"], 1)
    else:
        assert parity["measure"] == "copy_rounding_kl / rounding_kl"
        assert parity["copy_rounding_kl"] == pytest.approx(parity["rounding_kl"], rel=0.3)


def test_a_gguf_bundle_of_other_types_states_its_own_tolerance(dense_config, tokenizer, tmp_path):
    dense = dense_config.replace(head_dim=16).build(tokenizer=tokenizer, seed=1)
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "checkpoint")
    work = make_work(tmp_path, tmp_path / "checkpoint")
    metrics = export.run(configure(runtime="gguf", weights="F16"), work=work)
    assert metrics["format"] == "float16"
    assert (metrics["parity"]["measure"], metrics["parity"]["tolerance"]) == ("mean_kl", 0.01)


@pytest.mark.parametrize(
    ("number_format", "measure"),
    [("float32", "mean_kl"), ("int8", "copy_rounding_kl / rounding_kl")],
)
def test_a_gelu_in_half_precision_has_its_own_tolerance(number_format, measure, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", "gemma3", number_format)
    work = make_work(tmp_path, tmp_path / "checkpoint")
    parity = export.run(configure(runtime="gguf"), work=work)["parity"]
    assert parity["measure"] == measure and parity["argmax_agreement_ratio"] > 0.95
    if number_format == "float32":
        assert parity["mean_kl"] < parity["tolerance"] == 1e-4


def test_a_bundle_is_calibrated_on_its_own_drafts(checkpoint, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("limbeck.evaluation.calibration.MIN_HELD_OUT", 3)
    manifest = read_artifact(checkpoint).manifest.replace(kind="corpus")
    apart = Corpus(tmp_path)
    apart.write_records("validation", list(Corpus(corpus).records("validation")))
    for split in ("train", "test"):
        apart.write_records(split, [Record(split, f"{split}是什么？", "无", split, "s")])
    work = make_work(tmp_path, checkpoint, corpus=(Artifact(apart.folder, manifest),))
    calibration = {"num_questions": 5, "max_new_tokens": 2}
    metrics = export.run(configure(corpus="corpus", calibration=calibration), work=work)
    policy = read_policy(work.folder)
    assert metrics["calibration"] == policy.file.confidence.model_dump()
    assert policy.file.confidence.num_held_out == 5
    assert policy.judge("高血压看什么科？", confidence_ratio=0.5) is not None


def test_a_leak_leaves_a_bundle_uncalibrated_and_reports_it(checkpoint, corpus, tmp_path):
    manifest = read_artifact(checkpoint).manifest.replace(kind="corpus")
    work = make_work(tmp_path, checkpoint, corpus=(Artifact(corpus, manifest),))
    metrics = export.run(configure(corpus="corpus", num_prompts=1), work=work)
    assert "train" in metrics["calibration"]
    assert read_policy(work.folder).file.confidence == "not calibrated"


def test_without_a_corpus_a_bundle_keeps_what_its_checkpoint_has(checkpoint, tmp_path):
    AnswerPolicy(PolicyFile(disclaimer={"zh": "甲", "en": "a"})).write(checkpoint)
    work = make_work(tmp_path, checkpoint)
    export.run(configure(num_prompts=1), work=work)
    assert read_policy(work.folder).file.disclaimer["en"] == "a"


def test_formats_of_a_runtime_are_those_of_the_table(monkeypatch):
    known = {"float32", "int8", "int4", "int2", "ternary"}
    assert open_runtime("onnx").formats == open_runtime("transformers").formats == known
    monkeypatch.setitem(FORMATS, "int4_blocks", "docs.extend.examples.number_format:Int4Blocks")
    assert open_runtime("onnx").formats == known
    assert open_runtime("transformers").formats == known | {"int4_blocks"}


def test_a_wrong_graph_is_refused(checkpoint, tmp_path, monkeypatch):
    build = decoder.build_decoder

    def spoiled(architecture, *, tensors):
        model = build(architecture, tensors=tensors)
        for item in model.graph.initializer:
            if item.name == "model.norm":
                gains = np.frombuffer(item.raw_data, np.float32)
                item.raw_data = (gains[::-1] * 1.5).tobytes()
        return model

    monkeypatch.setattr("limbeck.runtimes.onnx.writer.build_decoder", spoiled)
    with pytest.raises(ParityError, match="answers differently"):
        export.run(configure(), work=make_work(tmp_path, checkpoint))


def test_not_a_number_is_no_parity(checkpoint, tmp_path, monkeypatch):
    compare = export.compare

    def broken(*models, prompts):
        found = compare(*models, prompts=prompts)
        nan = float("nan")
        return dataclasses.replace(found, mean_kl=nan, max_logit_difference=nan)

    monkeypatch.setattr(export, "compare", broken)
    with pytest.raises(ParityError, match="nan"):
        export.run(configure(), work=make_work(tmp_path, checkpoint))


def test_a_bundle_loses_no_more_by_rounding_than_its_checkpoint(checkpoint, tmp_path):
    metrics = export.run(configure(), work=make_work(tmp_path, checkpoint))
    parity = metrics["parity"]
    if metrics["format"] == "float32":
        assert parity["rounding_kl"] == parity["copy_rounding_kl"] == 0
        return
    assert parity["measure"] == "copy_rounding_kl / rounding_kl"
    assert parity["rounding_kl"] > 0
    assert parity["copy_rounding_kl"] == pytest.approx(parity["rounding_kl"], rel=0.2)


def test_a_runtime_that_rounds_no_activations_is_no_other_model(
    dense_config, tokenizer, tmp_path, monkeypatch
):
    """As ONNX Runtime does on processors for which it has no integer kernel."""
    monkeypatch.setattr("limbeck.runtimes.onnx.kernels.INTEGER_ACTIVATIONS", 0)
    dense = dense_config.replace(head_dim=16).build(tokenizer=tokenizer, seed=1)
    model = convert(dense, number_format=Int8(kind="int8"))
    save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / "checkpoint")
    work = make_work(tmp_path, tmp_path / "checkpoint")
    parity = export.run(configure(), work=work)["parity"]
    assert parity["copy_rounding_kl"] < 0.01 * parity["rounding_kl"]
    assert parity["mean_kl"] == pytest.approx(parity["rounding_kl"], rel=0.2)


@pytest.mark.parametrize(
    ("rounding", "copy", "passes"),
    [
        (4e-3, 4e-3, True),
        (4e-3, 7.9e-3, True),
        (4e-3, 8.1e-3, False),
        (4e-3, 0.0, True),
        (1e-7, 1.9e-4, True),
        (1e-7, 2.1e-4, False),
        (float("nan"), 1e-3, False),
        (4e-3, float("nan"), False),
    ],
)
def test_a_copy_may_lose_twice_what_rounding_costs(rounding, copy, passes):
    original, other = (LogitDifference(mean_kl=value) for value in (rounding, copy))
    found = LogitDifference(mean_kl=1.0).with_rounding(original=original, copy=other)
    outcome = contextlib.nullcontext() if passes else pytest.raises(ParityError)
    with outcome:
        found.check(Int8.tolerance, fault="x", advice="y")


def test_a_deep_model_passes_however_far_its_roundings_part(tmp_path):
    """One activation on a border moves all later layers: no fixed distance holds at 20 of them."""
    make_checkpoint(tmp_path / "deep", "qwen3", "int8", num_hidden_layers=20, initializer_range=0.7)
    work = make_work(tmp_path, tmp_path / "deep")
    parity = export.run(configure(num_prompts=4), work=work)["parity"]
    assert parity["mean_kl"] > 2e-3
    assert parity["copy_rounding_kl"] == pytest.approx(parity["rounding_kl"], rel=0.1)
