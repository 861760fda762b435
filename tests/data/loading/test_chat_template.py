"""Records as a model reads them."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.records import Record
from limbeck.data.loading.chat_template import render_records
from limbeck.models.chat_tokens import chat_template_of, end_token_id, end_token_ids
from limbeck.runtimes.chat import Chat
from limbeck.runtimes.transformers import TransformersCodec
from tests.models.test_chat import CHATML, CONTROL, GEMMA, INST, PLAIN, THINKING
from tests.support.byte_level_tokenizer import train_byte_level


def record(question, answer="答", **fields):
    return Record("r", question, answer, "g", "s", **fields)


def test_instructions_and_earlier_turns_stand_before_the_question(tokenizer):
    plain = record("头晕怎么办？", history=("你好", "您好"))
    (rendered,) = render_records(tokenizer, [record("头晕怎么办？", system="只答科室。")])
    (longer,) = render_records(tokenizer, [plain])
    text = tokenizer.decode(rendered.input_ids[: rendered.answer_start])
    assert text.index("只答科室。") < text.index("头晕怎么办？")
    text = tokenizer.decode(longer.input_ids[: longer.answer_start])
    assert text.index("你好") < text.index("您好") < text.index("头晕怎么办？")


@pytest.fixture(params=[CHATML, GEMMA, INST, THINKING, PLAIN])
def published(request):
    """A tokenizer as publishers make them: its turns and its texts end with different tokens."""
    tokenizer = train_byte_level(["高血压 low yes no"] * 3, num_tokens=300)
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": [*CONTROL[2:]]})
    tokenizer.chat_template = request.param
    return tokenizer


def test_a_record_is_what_the_template_makes_of_it(published):
    item = record("a <b>?\n  low", " 高血压: yes", history=("no", "low"), system="")
    (rendered,) = render_records(published, [item])
    turns = ["no", "low", "a <b>?\n  low", " 高血压: yes"]
    messages = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate(turns)
    ]
    whole = published.apply_chat_template(messages, tokenize=True, return_dict=False)
    prompt = published.apply_chat_template(
        messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert rendered.input_ids[: rendered.answer_start] == prompt
    end = end_token_id(published)
    assert rendered.input_ids[-1] == end
    assert rendered.input_ids[:-1] == whole[: len(rendered.input_ids) - 1]
    rest = published.decode(whole[len(rendered.input_ids) - 1 :])
    assert rest.strip() in ("", published.decode([end]))
    assert set(end_token_ids(published)) == {end, published.eos_token_id}


@pytest.mark.parametrize("fields", [{"system": "Be brief."}, {"history": ("low", "yes")}])
def test_a_turn_that_the_template_leaves_out_is_refused(tokenizer, fields):
    tokenizer.chat_template = "<|user|>{{ messages[-1].content | trim }}<|assistant|>"
    assert render_records(tokenizer, [record(" high? ")])
    with pytest.raises(CheckpointError, match=r"does not write its (system|user) turn"):
        render_records(tokenizer, [record("high?", **fields)])


def test_words_of_a_record_are_no_control_tokens(published):
    words = "".join(CONTROL)
    control = set(published.convert_tokens_to_ids(list(CONTROL)))

    def count(item):
        (rendered,) = render_records(published, [item])
        return sum(token in control for token in rendered.input_ids), rendered

    number, _ = count(record("a", "b", history=("c", "d"), system="e"))
    found, rendered = count(record(words, words, history=(words, words), system=words))
    assert found == number
    text = published.decode(rendered.input_ids, skip_special_tokens=True)
    assert text.count(words) >= 4  # templates may leave out instructions


def test_text_without_a_question_stands_between_start_and_end(published):
    (rendered,) = render_records(published, [record("", "low yes")])
    assert rendered.input_ids[-1] == published.eos_token_id
    assert published.bos_token_id not in rendered.input_ids
    backend = published.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", published.bos_token_id)]
    )
    (rendered,) = render_records(published, [record("", "low yes")])
    assert rendered.input_ids[0] == published.bos_token_id
    assert rendered.answer_start == 1


LETTERS = ["\u2581", "\u2581l", *"\nabcdefghijklmnopqrstuvwxyzINSTAU[]/:?"]


@pytest.fixture(params=["llama 2", "mistral"])
def marking(request):
    """A tokenizer that marks where a text starts, as SentencePiece does."""
    vocab = {name: place for place, name in enumerate(["<unk>", "<s>", "</s>", *LETTERS])}
    merges = [("\u2581", "l")]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    if request.param == "llama 2":
        replace = normalizers.Replace(" ", "\u2581")
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


BLANK = (
    "{% for m in messages %}{% if m.role == 'user' %}U: {{ m.content + '\n' }}{% else %}"
    "A: {{ m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A: {% endif %}"
)
LINES = BLANK.replace("A: ", "A:\n")


@pytest.mark.parametrize("template", [INST, LINES, BLANK])
def test_an_answer_begins_with_no_mark_of_a_texts_start(marking, template):
    marking.chat_template = template
    (rendered,) = render_records(marking, [record("may i ?", "low yes")])
    turns = [{"role": "user", "content": "may i ?"}, {"role": "assistant", "content": "low yes"}]
    whole = marking.apply_chat_template(turns, tokenize=True, return_dict=False)
    if template == BLANK:  # the prompt ends within a token of the whole
        found, expected = map(marking.convert_ids_to_tokens, (rendered.input_ids, whole))
        assert "".join(found) == "".join(expected)
    else:
        assert rendered.input_ids == whole
    chat = Chat(chat_template_of(marking), TransformersCodec(marking), end_ids=(2,))
    (option,) = chat.render_options(as_prompt("may i ?"), ["low yes"])
    assert [*option.given, *option.answer] == rendered.input_ids


def test_options_follow_the_same_tokens(marking):
    """A blank before an answer is one token with "low", and stands apart before "yes"."""
    marking.chat_template = INST
    chat = Chat(chat_template_of(marking), TransformersCodec(marking), end_ids=(2,))
    low, yes = chat.render_options(as_prompt("may i ?"), ["low", "yes"])
    assert low.given == yes.given
    assert marking.convert_ids_to_tokens(low.answer)[0] == "\u2581l"
    assert marking.convert_ids_to_tokens(yes.answer)[0] == "\u2581"
    (alone,) = chat.render_options(as_prompt("may i ?"), ["yes"])
    assert alone.answer == yes.answer[1:]
