import pytest

from limbeck.contracts.macros import expand


def test_macros_are_written_out_as_deep_as_they_go():
    macros = {"pain": "痛|疼", "chest_pain": "胸<pain>"}
    assert expand("<chest_pain>吗", macros=macros) == "(?:胸(?:痛|疼))吗"
    assert expand("(?<!不)痛", macros={}) == "(?<!不)痛"


@pytest.mark.parametrize(
    ("macros", "message"),
    [({}, "unknown macro <a>; known: $"), ({"a": "<b>", "b": "<a>"}, "nested more than")],
)
def test_what_cannot_be_written_out_is_named(macros, message):
    with pytest.raises(ValueError, match=message):
        expand("<a>", macros=macros)
