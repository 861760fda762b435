"""The bound of the queue: by number, and by the time that one more request would wait."""

from limbeck.serving.engine.queue_bound import QueueBound


def make(**settings):
    return QueueBound(**{"num_slots": 4, "max_waiting": 100, "max_wait_seconds": 1.0} | settings)


def end(bound, *, every, num=20, since=0.0, others_wait=True):
    for place in range(num):
        bound.note_end(since + 1 + place * every, others_wait=others_wait)


def test_before_a_pace_is_known_only_the_number_counts():
    assert not make().is_reached(99)
    assert make().is_reached(100)


def test_no_more_wait_than_will_have_a_row_in_time():
    bound = make()
    end(bound, every=0.1)  # ten rows a second: of eleven that wait, the last one waits too long
    assert not bound.is_reached(9)
    assert bound.is_reached(11)


def test_half_as_many_as_there_are_rows_may_wait_however_long_an_answer_takes():
    bound = make()
    end(bound, every=5.0)
    assert not bound.is_reached(1)
    assert bound.is_reached(2)


def test_idle_time_is_no_pace():
    bound = make()
    end(bound, every=60.0, others_wait=False)
    assert not bound.is_reached(99)


def test_an_old_pace_fades():
    bound = make()
    end(bound, every=0.01, num=1000)
    assert not bound.is_reached(50)
    end(bound, every=0.1, num=2000, since=11.0)
    assert bound.is_reached(50)
