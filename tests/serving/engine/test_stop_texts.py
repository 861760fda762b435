"""Stop texts: whatever the pieces, what is shown is what stands before the first of them."""

from hypothesis import given
from hypothesis import strategies as st

from limbeck.serving.engine.stop_texts import StopTexts

LETTERS = st.text("ab。", max_size=12)


@given(pieces=st.lists(LETTERS, max_size=8), stops=st.lists(LETTERS, max_size=3))
def test_pieces_change_nothing(pieces, stops):
    found = StopTexts(stops)
    shown = "".join(found.push(piece) for piece in pieces)
    shown += found.finish() if not found.has_ended else ""
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop and stop in whole]
    # A stop text that is complete ends the answer at once, so the first to be complete wins.
    ends = [whole.find(stop) + len(stop) for stop in stops if stop and stop in whole]
    if not places:
        assert shown == whole and not found.has_ended
    else:
        assert found.has_ended
        assert whole.startswith(shown)
        assert len(shown) <= min(ends)
        assert not any(stop in shown for stop in stops if stop)


def test_a_part_of_a_stop_text_is_never_shown_before_it_is_clear():
    found = StopTexts(["STOP"])
    assert found.push("a S") == "a "
    assert found.push("TO") == ""
    assert found.push("X") == "STOX"
    assert found.push("STOP b") == ""
    assert found.has_ended
    assert found.push("more") == ""
