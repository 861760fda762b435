"""The formats of recorded signals: what they give back, what they refuse, what a kill leaves."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, CheckpointError
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.signals import bit_packing as packing
from limbeck.distillation.signals.codec import quantise, restore
from limbeck.distillation.signals.config import Plain, SampledTokens, TopTokens
from limbeck.distillation.signals.fidelity import add_errors, mean_errors, measure_errors
from limbeck.distillation.signals.importance_sampled import sample_stratified
from limbeck.distillation.targets import ImportanceSampled, TopK
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.config import Needs
from limbeck.stages import record
from tests.distillation.signals.test_signals import as_artifact

BATCHING = BatchingConfig(per_device_train_batch_size=3, gradient_accumulation_steps=1)
FORMATS = [
    Plain(kind="plain", count=5),
    TopTokens(kind="top", count=5),
    SampledTokens(kind="sampled", count=9),
    SampledTokens(kind="sampled", count=9, power=0.5),
]
TEMPERATURES = (0.6, 1.0, 1.3, 2.0, 2.6, 6.0)


def some_logits(*, kept=40, vocab=700, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(kept, vocab, generator=generator) * 2.5
    return logits - logits.max(dim=-1, keepdim=True).values


def encode(codec, logits, seed=0):
    return codec.encode(logits, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [1, 3, 8, 13, 18, 25])
def test_packed_numbers_come_back(width):
    rng = np.random.default_rng(width)
    values = rng.integers(0, 1 << width, (6, 11))
    packed = packing.pack(values, bits=width)
    assert packed.shape[1] == packing.packed_bytes(11, bits=width) == math.ceil(11 * width / 8)
    assert (packing.unpack(packed, count=11, bits=width) == values).all()
    places = np.cumsum(rng.integers(width, 40, 50))
    flags = np.zeros((int(places[-1]) + 64) // 8 * 8, dtype=np.uint8)
    many = rng.integers(0, 1 << width, 50)
    packing.pack_at(flags, places, many, bits=width)
    found = packing.unpack_at(np.packbits(flags, bitorder="little"), places, bits=width)
    assert (found == many).all()


def test_gaps_come_back_within_half_a_step():
    gaps = np.random.default_rng(0).uniform(0, 30, (50, 9)).astype(np.float32)
    gaps[0] = 0
    steps, widest = quantise(gaps, bits=8)
    error = np.abs(restore(steps, widest, bits=8) - gaps)
    assert (error <= gaps.max(axis=1, keepdims=True) / 255 * 0.51 + 1e-6).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_top_tokens_are_the_teachers_at_any_temperature(temperature):
    logits = some_logits()
    codec = TopTokens(kind="top", count=20)
    output = codec.decode(encode(codec, logits), vocab=700, temperature=temperature)
    full = (logits.double() / temperature).log_softmax(dim=-1)
    assert (output.ids == logits.topk(20).indices).all()
    stored = torch.cat([output.logits.double() / temperature, output.tail[:, None].double()], dim=1)
    logs = stored.log_softmax(dim=-1)
    assert (logs[:, :-1] - full.gather(1, output.ids)).abs().mean() < 0.02
    true_tail = full.scatter(1, output.ids, -torch.inf).logsumexp(dim=-1)
    assert (logs[:, -1] - true_tail).abs().mean() < 0.05


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("temperature", TEMPERATURES[1:5])
def test_drawn_tokens_estimate_any_sum_without_bias(power, temperature):
    """Against the exact sum, the mean of many independent draws, in its standard errors."""
    one = some_logits(kept=1, vocab=60) * 0.6
    logits = one.expand(6000, -1)
    codec = SampledTokens(kind="sampled", count=12, power=power)
    output = codec.decode(encode(codec, logits), vocab=60, temperature=temperature)
    p = (one.double() / temperature).softmax(dim=-1)[0]
    function = torch.linspace(-1.0, 2.0, 60, dtype=torch.float64).square()
    found = (output.weights.double() * function[output.ids]).sum(dim=1)
    error = float(found.std()) / math.sqrt(len(found))
    # What quantisation adds besides is below 1 %.
    assert abs(float(found.mean() - (p * function).sum())) < 4 * error + 0.01
    mean = torch.zeros(60, dtype=torch.float64)
    mean.index_add_(0, output.ids.flatten(), output.weights.double().flatten() / len(found))
    assert (mean - p).abs().sum() < 0.05
    held = output.weights > 0
    logs = (one / temperature).log_softmax(dim=-1).expand(6000, -1).gather(1, output.ids)
    assert (output.logs - logs).abs()[held].mean() < 0.02


def test_weights_are_counts_where_tokens_are_drawn_as_the_student_reads_them():
    codec = SampledTokens(kind="sampled", count=16)
    output = codec.decode(encode(codec, some_logits()), vocab=700, temperature=1.0)
    assert torch.equal(output.weights.sum(dim=1), torch.ones(40))
    assert ((output.weights * 16) % 1 == 0).all()


def test_draws_lie_in_slices_of_equal_mass():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    found = sample_stratified(logits, count=8, generator=torch.Generator().manual_seed(3))
    assert torch.bincount(found[0]).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("codec", FORMATS[1:], ids=lambda codec: f"{codec.kind}{codec.bits}")
def test_a_part_decodes_as_it_does_within_the_whole(codec):
    logits = some_logits()
    arrays = encode(codec, logits)
    whole = codec.decode(arrays, vocab=700, temperature=2.0)
    ends = np.concatenate([[0], codec.widths(arrays, vocab=700).cumsum()])
    part = {
        name: array[ends[7] : ends[12]] if name == "packed" else array[7:12]
        for name, array in arrays.items()
    }
    for name, (dtype, shape) in codec.layout(700).items():
        assert arrays[name].dtype.str == dtype and arrays[name].shape[1:] == shape
    found = codec.decode(part, vocab=700, temperature=2.0)
    for name, ours in found.tensors().items():
        theirs = whole.tensors()[name]
        assert torch.equal(ours, theirs[7:12, : ours.shape[1]] if ours.ndim > 1 else theirs[7:12])


def test_nothing_is_left_out_where_all_tokens_are_kept():
    logits = some_logits(vocab=6)
    codec = TopTokens(kind="top", count=99)
    output = codec.decode(encode(codec, logits), vocab=6, temperature=1.5)
    assert output.ids.shape == (40, 6) and (output.tail < -1000).all()
    found = mean_errors(measure_errors(output, logits))
    assert found["kl_full_stored"] < 1e-3 and abs(found["kl_bias"]) < 1e-3


def test_the_budget_of_a_large_vocabulary_is_kept():
    codec = TopTokens(kind="top")
    layout = codec.layout(151_936)
    widths = (np.dtype(kind).itemsize * math.prod(shape) for kind, shape in layout.values())
    assert sum(widths) <= 100
    logits = some_logits(kept=3, vocab=151_936)
    output = codec.decode(encode(codec, logits), vocab=151_936, temperature=1.0)
    assert mean_errors(measure_errors(output, logits))["mean_abs_error"] <= 0.05


def test_a_bucket_is_a_bias_and_drawn_tokens_are_none():
    logits = some_logits(kept=64, vocab=300) * 0.4
    found = {}
    for codec in (TopTokens(kind="top", count=4), SampledTokens(kind="sampled", count=40)):
        sums = []
        for seed in range(20):
            arrays = encode(codec, logits, seed)
            output = codec.decode(arrays, vocab=300, temperature=1.0)
            sums.append(measure_errors(output, logits))
        found[codec.kind] = mean_errors(add_errors(sums))
    assert found["top"]["kl_bias"] < -10 * found["top"]["kl_bias_error"]
    assert abs(found["sampled"]["kl_bias"]) < 4 * found["sampled"]["kl_bias_error"] + 1e-3
    assert abs(found["sampled"]["kl_bias"]) < 0.2 * abs(found["top"]["kl_bias"])


def make(root, corpus, model, tokenizer, **settings):
    """Recorded signals in a folder, and their inputs and metrics."""
    if not (root / "teacher").exists():
        save_checkpoint(model, tokenizer=tokenizer, folder=root / "teacher")
    inputs = {
        "teacher": (as_artifact(root / "teacher", "checkpoint"),),
        "corpus": (as_artifact(corpus, "corpus"),),
    }
    given = {
        "stage": "record",
        "teacher": "teacher",
        "corpus": "corpus",
        "shard_records": 3,
        "batching": BATCHING.model_dump(),
    }
    config = record.Config.model_validate(given | settings)
    folder = root / "signals"
    folder.mkdir(exist_ok=True)
    metrics = record.run(config, work=Work("signals", folder, root / "state", inputs))
    return folder, inputs["corpus"][0], metrics


@pytest.fixture(scope="module")
def model(moe_config, tokenizer):
    return moe_config.build(tokenizer=tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, corpus, model, tokenizer):
    root = tmp_path_factory.mktemp("drawn")
    return make(
        root,
        corpus,
        model,
        tokenizer,
        layers=[2],
        hidden_precision="int8",
        targets={"kind": "sampled", "count": 20},
    )


def reopened(folder, root, corpus, *, needs=None, batching=BATCHING):
    """A copy's teacher: the copy may be damaged."""
    copy = root / "copy"
    shutil.copytree(folder, copy)
    return copy, lambda: open_teacher(
        [as_artifact(copy, "signals")],
        corpus=corpus,
        batches=Batches(
            Corpus(corpus.path),
            tokenizer=load_tokenizer(corpus.path / "tokenizer"),
            config=batching,
        ),
        needs=needs or Needs(1.0),
    )


def test_drawn_tokens_and_small_hidden_states_line_up(drawn, corpus, model, tokenizer, tmp_path):
    folder, artifact, metrics = drawn
    _, opening = reopened(folder, tmp_path, artifact)
    batch = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING).batch([6, 1, 4])
    live_teacher, stored_teacher = OnlineTeacher(model, vocab=len(tokenizer)), opening()
    for teacher in (live_teacher, stored_teacher):
        teacher.require(layers=[2])
    live, stored = live_teacher(batch), stored_teacher(batch)
    output = stored.output
    assert isinstance(output, ImportanceSampled)
    logs = live.output.logits[:, : len(tokenizer)].log_softmax(dim=-1).gather(1, output.ids)
    assert (output.logs - logs).abs()[output.weights > 0].max() < 0.1
    scale = live.hidden_states[0].abs().amax(dim=1, keepdim=True)
    assert ((stored.hidden_states[0] - live.hidden_states[0]).abs() <= scale / 254 * 1.01).all()
    assert metrics["mean_abs_error"] < 0.05 and "kl_bias" in metrics


def test_a_killed_recording_goes_on_where_it_was(corpus, model, tokenizer, tmp_path, monkeypatch):
    settings = {"targets": {"kind": "sampled", "count": 20}}
    (tmp_path / "whole").mkdir()
    folder, _, metrics = make(tmp_path / "whole", corpus, model, tokenizer, **settings)
    whole = {path.name: path.read_bytes() for path in folder.glob("s*")}
    killed = tmp_path / "killed"
    killed.mkdir()
    written = []

    def fail_second(*args, **kwargs):
        if written:
            raise KeyboardInterrupt
        written.append(args[0])
        return write(*args, **kwargs)

    write = record.write_shard
    monkeypatch.setattr(record, "write_shard", fail_second)
    with pytest.raises(KeyboardInterrupt):
        make(killed, corpus, model, tokenizer, **settings)
    with pytest.raises(ArtifactError, match=r"shards\.json"):
        reopened(killed / "signals", tmp_path, as_artifact(corpus, "corpus"), needs=Needs(1.0))[1]()
    first = written[0].stat().st_mtime_ns
    monkeypatch.setattr(record, "write_shard", write)
    resumed, _, again = make(killed, corpus, model, tokenizer, **settings)
    assert written[0].stat().st_mtime_ns == first
    assert {path.name: path.read_bytes() for path in resumed.glob("s*")} == whole
    assert again == metrics
    with pytest.raises(ArtifactError, match="another targets"):
        make(killed, corpus, model, tokenizer, targets={"kind": "top"})


@pytest.mark.parametrize(
    "part", ["shard-00001.safetensors", "signals.json", "record_ids.npy", "shards.json"]
)
def test_damage_is_refused_by_name(drawn, corpus, tokenizer, tmp_path, part):
    copy, opening = reopened(drawn[0], tmp_path, drawn[1])
    raw = bytearray((copy / part).read_bytes())
    place = raw.index(b'"max_length": ') + 14 if part == "signals.json" else len(raw) // 2
    raw[place] = ord("9") if raw[place] != ord("9") else ord("8")
    (copy / part).write_bytes(raw)
    batch = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING).batch([0, 3, 4])
    with pytest.raises(ArtifactError, match="record"):
        opening()(batch)


def test_other_files_and_tokens_are_refused(drawn, corpus, tokenizer, tmp_path):
    copy, opening = reopened(drawn[0], tmp_path, drawn[1])
    batch = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING).batch([0, 1])
    batch.input_ids[1, 0] += 1
    with pytest.raises(ArtifactError, match=r"record 1 has other tokens.*chat template"):
        opening()(batch)
    (copy / "shard-00001.safetensors").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        opening()


@pytest.mark.parametrize("what", ["tokenizer", "template", "corpus"])
def test_a_changed_source_is_refused_by_its_name(drawn, corpus, tmp_path, what):
    other = tmp_path / "corpus"
    shutil.copytree(corpus, other)
    if what == "template":
        path = other / "tokenizer" / "chat_template.jinja"
        path.write_text(path.read_text() + " ")
    if what == "tokenizer":
        changed = load_tokenizer(other / "tokenizer")
        changed.add_tokens(["头痛"])
        changed.save_pretrained(other / "tokenizer")
    artifact = as_artifact(other, "corpus")
    if what == "corpus":
        text = (other / "manifest.json").read_text()
        (other / "manifest.json").write_text(
            text.replace('"content_hash": "1"', '"content_hash": "2"')
        )
        artifact = type(artifact)(other, artifact.manifest.replace(content_hash="2"))
    _, opening = reopened(drawn[0], tmp_path, artifact)
    with pytest.raises(ArtifactError, match=f"recorded with {what} .*record them again"):
        opening()


def test_a_schedule_of_temperatures_is_refused(drawn, tmp_path):
    _, opening = reopened(drawn[0], tmp_path, drawn[1], needs=Needs(1.0, max_temperature=2.0))
    with pytest.raises(ArtifactError, match=r"goes from 1\.0 to 2\.0"):
        opening()


def test_a_teacher_that_is_not_finite_is_refused(corpus, model, tokenizer, tmp_path):
    save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / "teacher")
    broken = load_model(tmp_path / "teacher")
    with torch.no_grad():
        broken.get_output_embeddings().weight[3] = torch.nan
    shutil.rmtree(tmp_path / "teacher")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        make(tmp_path, corpus, broken, tokenizer)
    assert not list((tmp_path / "signals").glob("shard*"))


def test_old_spellings_of_targets_name_the_new_one():
    base = {"stage": "record", "teacher": "t", "corpus": "c"}
    config = record.Config.model_validate(base)
    assert config.targets == Plain(kind="plain", count=16, temperatures=(1.0, 2.0))
    assert record.Config.model_validate(json.loads(config.model_dump_json())) == config
    for old in ({"top": 3}, {"temperatures": [2.0]}):
        with pytest.raises(ValidationError, match="did you mean 'targets'"):
            record.Config.model_validate(base | old)
    with pytest.raises(ValidationError, match="power"):
        SampledTokens(kind="sampled", power=0.9)


def test_every_format_gives_what_objectives_read():
    logits = some_logits()
    for codec in FORMATS:
        output = codec.decode(encode(codec, logits), vocab=700, temperature=2.0)
        assert isinstance(output, ImportanceSampled if codec.kind == "sampled" else TopK)
        assert output.ids.dtype == torch.int64
        assert output.tensors()["weights" if codec.kind == "sampled" else "logits"].isfinite().all()
