"""Answering with checkpoints: the lean loop is `generate`, a batch is its rows."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from limbeck.contracts.answerer import as_prompt, geometric_mean
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.contracts.records import Record
from limbeck.data.loading.chat_template import render_records
from limbeck.models.chat_tokens import chat_template_of, end_token_ids
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.runtimes import open_answerer
from limbeck.runtimes.chat import Chat, TextStream, read_chat
from limbeck.runtimes.transformers import TransformersCodec, TransformersRuntime, open_chat
from tests.models.test_chat import CHATML, INST, THINKING
from tests.support.byte_level_tokenizer import train_byte_level
from tests.support.tiny_checkpoints import QUESTIONS, make_checkpoint, make_tokenizer

FORMATS = ["float32", "int8"]
KINDS = ["qwen3", "qwen3-untied", "llama", "moe"]


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_generate_token_for_token(kind, number_format, tmp_path):
    make_checkpoint(tmp_path, kind, number_format)
    model = load_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    answerer = open_answerer(tmp_path, num_threads=1)
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        tokens = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        new = tokens[0, prompt["input_ids"].shape[1] :]
        (answer,) = answerer.answer([question], max_new_tokens=12)
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)
        assert answer.num_tokens == len(new)


def test_stops_where_generate_stops(tmp_path):
    model = make_checkpoint(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    (endless,) = open_answerer(tmp_path, num_threads=1).answer(["药"], max_new_tokens=9)
    assert endless.num_tokens == 9
    chat = read_chat(tmp_path)
    session = TransformersRuntime().open_model(tmp_path, num_threads=1).open_session(num_slots=1)
    tokens = [int(session.admit([chat.render(as_prompt("药"))]).logits.argmax())]
    while len(tokens) < 9:
        tokens.append(int(session.step(tokens[-1:]).argmax()))
    end = tokens[-1]
    path = tmp_path / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eos_token_id": [tokenizer.eos_token_id, end]}))
    (ended,) = open_answerer(tmp_path, num_threads=1).answer(["药"], max_new_tokens=9)
    assert ended.num_tokens == tokens.index(end) + 1
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_uneven_prompts_equals_its_rows(kind, number_format, tmp_path):
    make_checkpoint(tmp_path, kind, number_format)
    answerer = open_answerer(tmp_path, num_threads=1)
    together = answerer.answer(QUESTIONS, max_new_tokens=10)
    alone = [answerer.answer([question], max_new_tokens=10)[0] for question in QUESTIONS]
    for left, right in zip(together, alone, strict=True):
        assert (left.text, left.num_tokens) == (right.text, right.num_tokens)
        assert left.confidence_ratio == pytest.approx(right.confidence_ratio, rel=2e-2)


def test_streaming_gives_the_answer_and_its_confidence(tmp_path):
    model = make_checkpoint(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    # A run of bytes that is no text looks different once it is complete, so say no single bytes.
    silent = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
    model.get_input_embeddings().weight.data[silent] = 0.0
    save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path)
    answerer = open_answerer(tmp_path, num_threads=1)
    for question in QUESTIONS:
        (answer,) = answerer.answer([question], max_new_tokens=15)
        pieces, log_probs = zip(*answerer.stream(question, max_new_tokens=15), strict=True)
        assert "".join(pieces) == answer.text
        assert len(pieces) == answer.num_tokens
        assert answer.confidence_ratio == pytest.approx(geometric_mean(log_probs), rel=1e-4)
        assert 0 < answer.confidence_ratio <= 1


def test_streams_no_half_characters(tmp_path):
    make_checkpoint(tmp_path)
    chat = read_chat(tmp_path)
    text = "症 a🙂β药"
    stream = TextStream(chat)
    pieces = [stream.push(token) for token in chat.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    half = TextStream(chat)
    assert half.push(chat.encode("🙂")[0]) == ""
    assert half.finish() == chat.decode(chat.encode("🙂")[:1])


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        ("<think>\n\n</think>\n\n药 a", "药 a"),
        ("<think>\nso</think>\n药", "<think>\nso</think>\n药"),
        ("<thi", "<thi"),
        ("药", "药"),
    ],
)
def test_an_answer_begins_behind_what_its_template_writes_first(tmp_path, generated, answer):
    make_checkpoint(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(THINKING, encoding="utf-8")
    chat = read_chat(tmp_path)
    tokens = chat.encode(generated)
    assert chat.read_answer(tokens) == answer
    stream = TextStream(chat)
    assert "".join(map(stream.push, tokens)) + stream.finish() == answer


def test_options_score_as_their_log_probability(tmp_path):
    model = make_checkpoint(tmp_path)
    answerer = open_answerer(tmp_path, num_threads=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    options = ["药", "头晕 dizzy 是", "What is it?"]
    scores = answerer.score(QUESTIONS[0], options)
    prompt = read_chat(tmp_path).render(as_prompt(QUESTIONS[0]))
    for option, score in zip(options, scores, strict=True):
        answer = [*tokenizer(option)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(answer)), answer].mean()
        assert score == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("source", [CHATML, INST, THINKING])
def test_options_are_scored_in_the_tokens_that_are_trained(source):
    tokenizer = train_byte_level(["say yes and yes and yes"] * 9, num_tokens=300)
    tokenizer.chat_template = source
    assert tokenizer.encode(" yes") != [*tokenizer.encode(" "), *tokenizer.encode("yes")]
    ends = end_token_ids(tokenizer)
    chat = Chat(chat_template_of(tokenizer), TransformersCodec(tokenizer), end_ids=ends)
    (option,) = chat.render_options(as_prompt("say"), ["yes"])
    (trained,) = render_records(tokenizer, [Record("r", "say", "yes", "g", "s")])
    assert [*option.given, *option.answer] == trained.input_ids


def test_the_order_of_end_tokens_changes_no_score(tmp_path):
    make_checkpoint(tmp_path)
    path = tmp_path / "generation_config.json"
    config = json.loads(path.read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    scores = []
    for ends in ([tokenizer.eos_token_id, 5], [5, tokenizer.eos_token_id], [5, 7, 9]):
        path.write_text(json.dumps({**config, "eos_token_id": ends}))
        scores.append(open_answerer(tmp_path, num_threads=1).score("药", ["心内科", "皮肤"]))
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)
    # Any of them ends the answer, so more of them make each answer likelier.
    assert all(more > fewer for more, fewer in zip(scores[2], scores[0], strict=True))


def test_the_lean_chat_renders_as_transformers(tmp_path):
    model = make_checkpoint(tmp_path)
    lean, full = read_chat(tmp_path), open_chat(tmp_path, model=model)
    for text in [*QUESTIONS, "", " a\n\n b ", "<|end|>x", "{{ 1 }}", "ﬁ ① é e\u0301", "🙂\x00"]:
        assert lean.render(as_prompt(text)) == full.render(as_prompt(text))
        assert lean.encode(text) == full.encode(text)
        ids = lean.encode(text)
        assert lean.decode(ids) == full.decode(ids)
    assert lean.end_ids == full.end_ids


def test_sizes_count_ties_once_and_picked_experts_only(tmp_path):
    model = make_checkpoint(tmp_path / "moe", "moe")
    size = open_answerer(tmp_path / "moe", num_threads=1).size()
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.active_parameters == size.parameters - experts + experts * 2 // 4
    for number_format, low, high in (("float32", 4.0, 4.6), ("int8", 1.0, 1.6)):
        folder = tmp_path / number_format
        make_checkpoint(folder, "qwen3", number_format, hidden_size=128)
        size = open_answerer(folder, num_threads=1).size()
        dense = make_checkpoint(tmp_path / "dense", "qwen3", hidden_size=128)
        assert size.parameters == size.active_parameters
        assert size.parameters == sum(p.numel() for p in dense.parameters())
        assert low < size.weight_bytes / size.parameters < high


def test_uses_the_threads_it_was_given(tmp_path):
    make_checkpoint(tmp_path)
    before = torch.get_num_threads()
    answerer = open_answerer(tmp_path, num_threads=2)
    answerer.answer(["药"], max_new_tokens=1)
    assert answerer.num_threads() == torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_limits_are_kept(tmp_path):
    make_checkpoint(tmp_path)
    answerer = open_answerer(tmp_path, num_threads=1)
    assert answerer.answer([], max_new_tokens=5) == []
    assert answerer.score("药", []) == []
    with pytest.raises(DataError, match="shorten"):
        answerer.answer(["药" * 200], max_new_tokens=5)
    (answer,) = answerer.answer(["药" * 120], max_new_tokens=500)
    assert answer.num_tokens <= 128 - 122


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        open_answerer(tmp_path / "nowhere", num_threads=1)
    with pytest.raises(CheckpointError, match="neither"):
        open_answerer(tmp_path, num_threads=1)
    make_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer_config\.json"):
        open_answerer(tmp_path / "a", num_threads=1)


def test_transformers_itself_reads_the_checkpoint(tmp_path):
    model = make_checkpoint(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([make_tokenizer(tmp_path / "t")("药药")["input_ids"]])
    assert torch.equal(model(ids).logits, stock(ids).logits)
