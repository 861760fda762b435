"""A checkpoint and its bundle give lm-eval the numbers that its own `hf` model gives."""

import json

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.harness.language_model import HarnessModel
from limbeck.harness.model_text import open_model
from limbeck.harness.run import Settings, run_harness
from limbeck.runtimes import open_runtime
from tests.support.harness_tasks import write_tasks
from tests.support.tiny_checkpoints import make_checkpoint

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")
TOLERANCE = 1e-4
"""Nats: float32 sums in another order."""
NAMES = ["tiny_choice", "tiny_text", "tiny_generate"]


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def folder(request, tmp_path_factory):
    """A checkpoint, its bundle and tasks; the llama's tokenizer writes a start token."""
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(folder / "checkpoint", request.param)
    if request.param == "llama":
        add_start_token(folder / "checkpoint")
    open_runtime("onnx").write(folder / "checkpoint", folder / "bundle")
    write_tasks(folder / "tasks")
    return folder


def add_start_token(folder):
    """Let the tokenizer put its end-of-text token before every text, as Llama's puts its own."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = tokenizer.pad_token
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A", pair=f"{start[0]} $A $B", special_tokens=[start]
    )
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"][0] == start[1]


def by_lm_eval(folder, monkeypatch, *, tasks, chat, num_fewshot=None, **options):
    """What lm-eval's own model of the checkpoint gives for some tasks."""
    monkeypatch.chdir(folder / "tasks")
    # Asks pip for everything that is installed, each time.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    model = HFLM(
        pretrained=str(folder / "checkpoint"),
        device="cpu",
        dtype="float32",
        batch_size=2,
        **options,
    )
    return simple_evaluate(
        model=model,
        tasks=tasks,
        num_fewshot=num_fewshot,
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )["samples"]


def answers_of(samples, task):
    return [[response for (response,) in item["resps"]] for item in samples[task]]


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("prompts", ["plain", "chat"])
def test_numbers_are_those_of_lm_evals_own_model(folder, prompts, num_fewshot, monkeypatch):
    settings = Settings(prompts=prompts, num_fewshot=num_fewshot, task_folder=folder / "tasks")
    report = run_harness([folder / "checkpoint", folder / "bundle"], tasks=NAMES, settings=settings)
    chat = prompts == "chat"
    # A rendered conversation has no start token but its template's, and a text has one, not two.
    options = {"add_bos_token": False} if chat else {}
    asked = ["tiny_choice", "tiny_generate"]
    expected = by_lm_eval(
        folder, monkeypatch, tasks=asked, chat=chat, num_fewshot=num_fewshot, **options
    )
    rolling = by_lm_eval(
        folder, monkeypatch, tasks=["tiny_text"], chat=chat, num_fewshot=0, add_bos_token=False
    )
    for model in report.models:
        for found, other in zip(
            answers_of(model.samples, "tiny_choice"),
            answers_of(expected, "tiny_choice"),
            strict=True,
        ):
            assert [log for log, _ in found] == pytest.approx(
                [log for log, _ in other], abs=TOLERANCE
            )
            assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in other]
        assert answers_of(model.samples, "tiny_generate") == answers_of(expected, "tiny_generate")
        for found, other in zip(
            answers_of(model.samples, "tiny_text"), answers_of(rolling, "tiny_text"), strict=True
        ):
            assert found == pytest.approx(other, abs=TOLERANCE)


def ask(folder, *, prompts="plain", batch_size=3, **limits):
    model, text = open_model(folder, num_threads=1)
    if limits:
        model.max_tokens = limits["max_tokens"]
    return HarnessModel(model, text=text, name="tiny", prompts=prompts, batch_size=batch_size)


def instances(kind, *arguments):
    return [Instance(kind, {}, item, 0, ("tiny", place, 1)) for place, item in enumerate(arguments)]


PAIRS = [("高血压 ", "有"), ("What is", " it?"), ("", "dizzy"), ("药", "高血压有哪些症状？ What")]


def test_a_number_depends_on_no_neighbour(folder):
    requests = instances("loglikelihood", *PAIRS, *PAIRS[:2])
    alone = [ask(folder / "bundle").loglikelihood([request])[0] for request in requests]
    for size in (1, 3, 16):
        together = ask(folder / "bundle", batch_size=size).loglikelihood(requests)
        for (found, is_greedy), (expected, other) in zip(together, alone, strict=True):
            assert found == pytest.approx(expected, abs=TOLERANCE)
            assert is_greedy == other


@pytest.mark.parametrize("max_tokens", [12, 5])
def test_long_requests_are_cut_as_lm_eval_cuts_them_and_counted(folder, max_tokens):
    model = ask(folder / "checkpoint", max_tokens=max_tokens)
    other = HFLM(
        pretrained=str(folder / "checkpoint"),
        device="cpu",
        dtype="float32",
        max_length=max_tokens,
        add_bos_token=False,
    )
    long = "高血压有哪些症状？What is it? 头晕 dizzy"
    pairs = instances("loglikelihood", (long, "药"), ("药", "有"))
    texts = instances("loglikelihood_rolling", (long,), ("药",), ("",))
    found = [log for log, _ in model.loglikelihood(pairs)]
    if folder.name.startswith("qwen3"):
        expected = [log for log, _ in other.loglikelihood(pairs, disable_tqdm=True)]
        assert found == pytest.approx(expected, abs=TOLERANCE)
    assert model.num_truncated == 1
    expected = other.loglikelihood_rolling(texts, disable_tqdm=True)
    assert model.loglikelihood_rolling(texts) == pytest.approx(expected, abs=TOLERANCE)


def generate(folder, settings, question="高血压有哪些症状？", **options):
    return ask(folder / "bundle", **options).generate_until(
        instances("generate_until", (question, settings))
    )[0]


def test_an_answer_ends_before_what_stops_it(folder):
    whole = generate(folder, {"max_gen_toks": 20})
    assert len(whole) > 6
    for stop in (whole[3], whole[2:5]):
        settings = {"until": [stop, "never"], "max_gen_toks": 20}
        assert generate(folder, settings) == whole[: whole.index(stop)]
    assert generate(folder, {"until": ["never"], "max_new_tokens": 20}) == whole


def test_a_special_token_that_a_task_names_stops_an_answer(folder):
    model = ask(folder / "bundle")
    request = instances("generate_until", ("药", {"until": [model._text.prefix, "\n"]}))[0]
    request.arguments[1]["max_gen_toks"] = 8
    plan = model._plan(request)
    assert plan.end_ids == {model._text.prefix_id} and plan.stops == ("\n",)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"do_sample": True, "temperature": 0.7}, "greedily"),
        ({"temperature": 0.7}, "greedily"),
        ({"num_beams": 4}, "leave out num_beams"),
        ({"max_gen_toks": 500}, "set max_gen_toks"),
    ],
)
def test_what_cannot_be_generated_is_refused_by_name(folder, settings, fault):
    with pytest.raises(DataError, match=f"'tiny', document 0.*{fault}"):
        generate(folder, settings)


def test_empty_continuations_are_refused(folder):
    for pair in (("", ""), ("药", "")):
        with pytest.raises(DataError, match="doc_to_choice"):
            ask(folder / "bundle").loglikelihood(instances("loglikelihood", pair))


def test_a_control_token_in_a_question_opens_no_turn(folder):
    model = ask(folder / "checkpoint", prompts="chat")
    end = next(iter(model._text.special_ids))
    rendered = model.apply_chat_template([{"role": "user", "content": f"药{end}药"}])
    plain = model.apply_chat_template([{"role": "user", "content": "药药"}])
    control = model._text.special_ids[end]
    assert model.tok_encode(rendered).count(control) == model.tok_encode(plain).count(control)


def test_an_answer_that_is_begun_stays_open(folder):
    model = ask(folder / "bundle", prompts="chat")
    turns = [{"role": "user", "content": "药"}, {"role": "assistant", "content": "有"}]
    begun = model.apply_chat_template(turns, add_generation_prompt=False)
    assert begun == model.apply_chat_template(turns[:1]) + "有"


def test_a_base_model_is_asked_as_plain_text_only(folder, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in (folder / "checkpoint").iterdir():
        if path.name != "chat_template.jinja":
            (base / path.name).write_bytes(path.read_bytes())
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="--no-chat"):
        ask(base, prompts="chat")
    requests = instances("loglikelihood", *PAIRS)
    assert ask(base).loglikelihood(requests) == ask(folder / "checkpoint").loglikelihood(requests)
