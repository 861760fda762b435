"""What a run would refuse of its models is refused by `check`, with the line of its cause."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from limbeck.contracts.errors import RecipeError
from limbeck.contracts.recipe import load_recipe
from limbeck.env.machine import describe_machine
from limbeck.pipeline import memory
from limbeck.pipeline.check import check
from tests.support import tiny_checkpoints
from tests.support.published_checkpoints import STUDENTS, TEACHERS, make_checkpoint

DESCRIBED = (
    "{kind: dense, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 1, head_dim: 16, intermediate_size: 32}"
)
WIDE = DESCRIBED.replace("hidden_size: 16", "hidden_size: 32")
MOE = (
    "{kind: moe, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 1, head_dim: 16, moe_intermediate_size: 8, num_experts: 4}"
)
FUSED = MOE.replace("kind: moe", "kind: moe, fusion: attention, fusion_heads: 4")
TRAINING = "objective: {kind: next_token}, training: {max_steps: 1}"
DISTILL = "stage: distill, corpus: corpus"
PRUNE = "stage: prune, corpus: corpus, training: {max_steps: 1}"
QUANTIZE = "stage: quantize, corpus: corpus, scheme: {kind: int8}"
DISTILLING = "objective: {kind: soft_target}, training: {max_steps: 1}"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Published mixtures and dense models of one tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name in ("qwen3_moe", "mixtral", "deepseek_v3"):
        make_checkpoint(root / name, build=TEACHERS[name])
    for name, build in STUDENTS.items():
        make_checkpoint(root / name, build=build)
    tiny_checkpoints.make_checkpoint(root / "int8", number_format="int8")
    return root


@pytest.fixture
def look(tmp_path, models):
    """The faults of a recipe by place, and its notes; `@` stands for the folder of models."""

    def look(*lines, corpus="qwen3"):
        tokenizer = f"tokenizer: '@/{corpus}', " if corpus else ""
        first = (
            f"corpus: {{stage: prepare, pack: medical, {tokenizer}sources: [{{kind: knowledge}}]}}"
        )
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join([first, *lines]).replace("@", str(models)))
        notes = []
        try:
            check(load_recipe(path), note=notes.append)
        except RecipeError as error:
            return {fault.where: (fault.line, fault.message) for fault in error.faults}, notes
        return {}, notes

    return look


def test_a_sound_chain_of_folders_has_no_faults(look):
    assert look(
        "signals: {stage: record, corpus: corpus, teacher: '@/qwen3_moe'}",
        f"student: {{{DISTILL}, teacher: signals, student: '@/qwen3', {DISTILLING}}}",
        f"pruned: {{{PRUNE}, checkpoint: student}}",
        f"int8: {{{QUANTIZE}, checkpoint: pruned, {TRAINING}}}",
        "bundle: {stage: export, checkpoint: int8}",
        "back: {stage: convert, checkpoint: '@/qwen3_moe', architecture: limbeck_moe}",
        "report: {stage: evaluate, corpus: corpus, models: ['@/qwen3', int8, bundle]}",
    ) == ({}, [])


@pytest.mark.parametrize(
    ("lines", "where", "message"),
    [
        (
            [
                "bundle: {stage: export, checkpoint: '@/qwen3'}",
                "l: {stage: label, corpus: corpus, teacher: bundle, precision: bfloat16}",
            ],
            "l.teacher",
            "computes as it was exported or quantised",
        ),
        (
            ["l: {stage: label, corpus: corpus, teacher: '@/int8', precision: bfloat16}"],
            "l.teacher",
            "leave `precision` out",
        ),
        (
            [f"p: {{{PRUNE}, checkpoint: '@/mixtral'}}"],
            "p.channels_ratio",
            "no layer has `mlp.gate_proj`",
        ),
        (
            [
                f"t: {{stage: train, corpus: corpus, model: {MOE}, {TRAINING}}}",
                f"p: {{{PRUNE}, checkpoint: t}}",
            ],
            "p.channels_ratio",
            "no layer has `mlp.gate_proj`",
        ),
        (
            [
                f"t: {{stage: train, corpus: corpus, model: {FUSED}, {TRAINING}}}",
                "b: {stage: export, checkpoint: t}",
            ],
            "b.checkpoint",
            "experts fused by 'attention' cannot be exported",
        ),
        (
            ["b: {stage: export, checkpoint: '@/deepseek_v3'}"],
            "b.checkpoint",
            "'deepseek_v3' cannot be exported to onnx",
        ),
        (
            ["b: {stage: export, checkpoint: '@/qwen3', runtime: gguf, weights: Q8}"],
            "b.weights",
            "unknown weights of 'gguf' 'Q8': did you mean 'Q8_0'?",
        ),
        (
            ["b: {stage: export, checkpoint: '@/qwen3', weights: F16}"],
            "b.weights",
            "unknown weights of 'onnx' 'F16'",
        ),
        (
            ["b: {stage: export, checkpoint: '@/int8', runtime: gguf, weights: F16}"],
            "b.checkpoint",
            "F16 would round them again",
        ),
        (
            [f"p: {{{PRUNE}, checkpoint: '@/qwen3', multiple: 64}}"],
            "p.channels_ratio",
            "which rounds to 64 at multiples of 64, so nothing would be cut",
        ),
        (
            [
                f"t: {{stage: train, corpus: corpus, model: {DESCRIBED}, {TRAINING}}}",
                "p: {stage: prune, corpus: corpus, checkpoint: t, channels_ratio: 0, "
                "layers_ratio: 0.01}",
            ],
            "p.layers_ratio",
            "so nothing would be cut",
        ),
        (
            [
                "p: {stage: prune, corpus: corpus, checkpoint: '@/llama', channels_ratio: 0, "
                "hidden_ratio: 0.35, multiple: 1}"
            ],
            "p.hidden_ratio",
            "LlamaConfig: transformers does not load the sizes that would be left",
        ),
        (
            ["c: {stage: convert, checkpoint: '@/qwen3', architecture: limbeck_moe}"],
            "c.checkpoint",
            "does not convert to 'limbeck_moe'",
        ),
        (
            [f"t: {{stage: train, corpus: corpus, model: '@/int8', {TRAINING}}}"],
            "t.model",
            "its codes cannot be trained",
        ),
        (
            [
                f"t: {{stage: train, corpus: corpus, model: {DESCRIBED}, {TRAINING}}}",
                f"q: {{{QUANTIZE}, checkpoint: t, {TRAINING}}}",
                f"p: {{{PRUNE}, checkpoint: q}}",
            ],
            "p.checkpoint",
            "quantised already (int8)",
        ),
        (
            [
                f"s: {{{DISTILL}, student: {DESCRIBED}, teacher: '@/llama', "
                f"router_sampling: {{num_samples: 2}}, {DISTILLING}}}"
            ],
            "s.router_sampling",
            "has no router",
        ),
        (
            [
                f"s: {{{DISTILL}, student: {WIDE}, teacher: '@/llama', "
                f"initialize_from: '@/llama', initialize_experts: most_used, {DISTILLING}}}"
            ],
            "s.initialize_experts",
            "no layer has stacked experts",
        ),
        (
            [
                f"s: {{{DISTILL}, student: {DESCRIBED}, teacher: '@/llama', "
                f"initialize_from: '@/llama', {DISTILLING}}}"
            ],
            "s.initialize_from",
            "nothing of LlamaForCausalLM (hidden 32) fits",
        ),
        (
            [
                "s: {stage: distill, corpus: corpus, student: '@/qwen3', teacher: '@/llama', "
                "objective: {kind: soft_target, matching: [{student_layer: 3, teacher_layer: 2}]}, "
                "training: {max_steps: 1}}"
            ],
            "s.objective.matching",
            "student layer 3, the student has 2",
        ),
        (
            [
                "r: {stage: record, corpus: corpus, teacher: '@/llama'}",
                "s: {stage: distill, corpus: corpus, student: '@/qwen3', teacher: r, "
                "objective: {kind: soft_target, matching: [{layers: uniform}]}, "
                "training: {max_steps: 1}}",
            ],
            "s.objective.matching",
            "set `layers` of the `record` entry",
        ),
        (
            ["r: {stage: record, corpus: corpus, teacher: '@/llama', layers: [3]}"],
            "r.teacher",
            "teacher layers [3] are required",
        ),
    ],
)
def test_a_stage_that_cannot_work_is_refused_with_its_line(look, lines, where, message):
    faults, _ = look(*lines)
    assert list(faults) == [where]
    line, text = faults[where]
    assert line == 1 + len(lines)
    assert message in text


def test_tokenizers_that_differ_are_refused(look):
    faults, _ = look(
        "r: {stage: record, corpus: corpus, teacher: '@/llama'}",
        f"s: {{{DISTILL}, student: {DESCRIBED}, teacher: r, {DISTILLING}}}",
        corpus="",
    )
    assert "'corpus' trains one of its own" in faults["r.teacher"][1]
    faults, _ = look(f"s: {{{DISTILL}, student: '@/int8', teacher: '@/llama', {DISTILLING}}}")
    assert any("the student's tokenizer differs" in text for _, text in faults.values())


def break_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_short(folder):
    path = sorted(folder.glob("*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-10])


def remove_shard(folder):
    sorted(folder.glob("*.safetensors"))[-1].unlink()


def remove_end(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            value = json.loads(path.read_text())
            value.pop("eos_token", None)
            path.write_text(json.dumps(value))


def widen_weight(folder):
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if "model.norm.weight" in tensors:
            save_file(tensors | {"model.norm.weight": torch.zeros(48)}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "no tokenizer_config.json"),
        (remove_end, "has no eos_token"),
        (cut_short, "is cut short or damaged"),
        (remove_shard, "lacks"),
        (widen_weight, "weights do not fit config.json"),
        (lambda folder: break_config(folder, hidden_size=64), "weights do not fit config.json"),
        (lambda folder: break_config(folder, vocab_size=100), "the model knows 100 tokens"),
        (lambda folder: break_config(folder, model_type="lama"), "did you mean 'llama'?"),
    ],
)
def test_a_damaged_folder_is_refused(look, models, damage, message):
    folder = models / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / "llama", folder)
    damage(folder)
    faults, _ = look("r: {stage: record, corpus: corpus, teacher: '@/damaged'}")
    assert message in faults["r.teacher"][1]
    assert faults["r.teacher"][0] == 2


def test_longer_records_than_the_model_are_noted(look, models):
    batching = "batching: {max_length: 513}"
    _, notes = look(
        f"t: {{stage: train, corpus: corpus, model: '@/llama', {batching}, {TRAINING}}}"
    )
    assert notes == [
        "t: records of up to 513 tokens (batching.max_length) reach beyond the 512 positions that "
        f"{models / 'llama'} is made for"
    ]


def test_longer_records_than_a_teacher_are_noted(look, models):
    _, notes = look(
        "t: {stage: record, corpus: corpus, teacher: '@/llama', batching: {max_length: 513}}"
    )
    (note,) = notes
    assert "513 tokens" in note and f"512 positions that {models / 'llama'} is made for" in note


def test_what_descriptions_state_is_what_layers_show():
    """The short way, without torch, agrees with the functions that refuse while a stage runs."""
    from limbeck.distillation.initialization.from_experts import check_experts
    from limbeck.distillation.teachers.router_sampling import check_gates
    from limbeck.models.checkpoints import build_without_weights
    from limbeck.models.config import DenseModel, MoeModel
    from limbeck.models.structure import find_channels, find_heads
    from limbeck.models.vocabulary import Vocabulary
    from limbeck.runtimes import open_runtime
    from limbeck.runtimes.architecture import describe_architecture

    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    looks = {
        "cut_channels": find_channels,
        "cut_heads": find_heads,
        "route": check_gates,
        "give_experts": check_experts,
        "be_exported": lambda model: describe_architecture(
            model.config, number_format="int8", runtime=open_runtime("onnx"), place="model"
        ),
    }
    known = (
        DenseModel(kind="dense", intermediate_size=16, **shape),
        MoeModel(kind="moe", moe_intermediate_size=8, num_experts=4, n_shared_experts=1, **shape),
    )
    for description in known:
        model = build_without_weights(description.describe(Vocabulary(100)))
        assert description.abilities
        for ability in description.abilities:
            looks[ability](model)


def test_models_larger_than_the_memory_are_refused(look, models, tmp_path, monkeypatch):
    lines = (
        f"t: {{stage: train, corpus: corpus, model: '@/llama', {TRAINING}}}",
        "report: {stage: evaluate, corpus: corpus, models: ['@/llama', t]}",
    )
    assert look(*lines) == ({}, [])
    recipe = load_recipe(tmp_path / "recipe.yaml")
    entries = check(recipe)
    memory.check_memory(recipe, entries)
    machine = describe_machine()
    # 54,000 parameters: 216 kB to hold, 864 kB to train.
    for room, wanted in (
        (500_000, ["t.model"]),
        (100_000, ["t.model", "report.models", "report.models"]),
    ):
        tight = dataclasses.replace(machine, memory_bytes=room)
        monkeypatch.setattr(memory, "describe_machine", lambda tight=tight: tight)
        with pytest.raises(RecipeError, match=r"this machine has 0.0 GB") as caught:
            memory.check_memory(recipe, entries)
        assert [fault.where for fault in caught.value.faults] == wanted
    with pytest.raises(RecipeError) as caught:
        memory.check_memory(recipe, entries, made=["t"])
    assert [fault.line for fault in caught.value.faults] == [3, 3]
