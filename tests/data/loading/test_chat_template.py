"""Records as a model reads them."""

from limbeck.contracts.records import Record
from limbeck.data.loading.chat_template import render_records


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
