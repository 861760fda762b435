"""The renderer equals transformers', on what published templates use, over any number of turns."""

import pytest

from limbeck.contracts.answerer import Message, Prompt, alternate, as_prompt
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.models.chat import ChatTemplate, place_image_tokens
from limbeck.models.checkpoints import chat_template_of
from tests.support.byte_level_tokenizer import train_byte_level

TEMPLATES = {
    "roles": "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "blocks": """
    {%- if messages[0].role == 'system' %}
        {{- '[sys]' + messages[0].content }}
    {%- endif %}
    {% for m in messages %}
      {% if m.role == 'user' %}
    {{ loop.index0 }} {{ m.content }}
      {% elif m.role == 'system' %}
        {% continue %}
      {% endif %}
    {% endfor %}
    """,
    "namespace": "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}{{ messages | tojson }}",
    "tojson": "{{ messages | tojson(indent=2) }}"
    "{{ {'b': 1, 'a': '<药>'} | tojson(sort_keys=true) }}",
    "tools": "{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}"
    "{{ bos_token is defined }}{{ pad_token }}{{ messages[-1].content }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "date": "{{ strftime_now('%Y') }}{{ messages[-1]['content'] }}",
}
CONVERSATIONS = [
    as_prompt("头晕 <b>?</b>\n\n").messages,
    alternate(["a", "b", " c "]),
    (Message("system", "Be brief."), *alternate(["{{ 1 }}", "", "<|end|>", "d", "e\u0301"])),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_level(["高血压 low <|user|>"] * 3, num_tokens=300)


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=len)
@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers(name, messages, tokenizer):
    tokenizer.chat_template = TEMPLATES[name]
    expected = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert chat_template_of(tokenizer).render(messages) == expected


def test_a_base_model_reads_one_message_a_line():
    template = ChatTemplate(None, special_tokens={})
    assert template.render(alternate(["a", "b", "c"])) == "a\nb\nc\n"


def test_a_template_that_refuses_or_is_damaged_is_named():
    refusing = ChatTemplate("{{ raise_exception('no users') }}", special_tokens={}, place="here")
    with pytest.raises(CheckpointError, match=r"here: .*no users"):
        refusing.render(alternate(["a"]))
    with pytest.raises(CheckpointError, match="damaged chat template"):
        ChatTemplate("{% if %}", special_tokens={})


def test_a_template_cannot_leave_its_sandbox():
    template = ChatTemplate("{{ messages.__class__.__mro__ }}", special_tokens={})
    with pytest.raises(CheckpointError, match="unsafe"):
        template.render(alternate(["a"]))


def test_image_tokens_stand_before_the_first_message_of_the_user():
    messages = [Message("system", "s"), *alternate(["a", "b", "c"])]
    placed = [message.content for message in place_image_tokens(messages, num_tokens=2)]
    assert placed == ["s", "<|image|><|image|>a", "b", "c"]
    with pytest.raises(DataError, match="itself"):
        place_image_tokens(alternate(["a <|image|>"]), num_tokens=2)


@pytest.mark.parametrize("messages", [(), alternate(["a", "b"])], ids=len)
def test_a_prompt_ends_with_the_user(messages):
    with pytest.raises(DataError, match="the last of role 'user'"):
        Prompt(messages)
