"""Records as a teacher's tokenizer makes them."""

import pytest

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.records import Record
from limbeck.drafting.rendering import try_template
from tests.support.byte_level_tokenizer import train_byte_level

WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{{ m.content }}</s>{% endfor %}"
)


def test_what_the_chat_template_refuses_is_counted():
    tokenizer = train_byte_level(["a b"], num_tokens=300)
    tokenizer.chat_template = WITHOUT_SYSTEM
    plain = [Record(str(place), "a", "b", "g", "s") for place in range(2)]
    wrong = Record("x", "a", "b", "g", "s", system="Be brief.")
    assert try_template(plain, tokenizer=tokenizer) == (plain, "")
    taken, note = try_template([wrong, *plain], tokenizer=tokenizer)
    assert taken == plain
    assert "1 of 3 records, such as record 'x'" in note and "no system role" in note
    with pytest.raises(CheckpointError, match="no system role"):
        try_template([wrong], tokenizer=tokenizer)
