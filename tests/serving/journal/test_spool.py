"""Lines come back whole, once and in order, whatever happens to the process or the disk."""

import os
import resource

import psutil
import pytest

from limbeck.serving.journal import spool as spool_module
from limbeck.serving.journal.spool import Spool, SpoolFullError


def lines(*numbers):
    return [f"{number:04d}\n".encode() for number in numbers]


def open_spool(folder, max_bytes=1 << 20):
    spool = Spool(folder, max_bytes=max_bytes)
    spool.open()
    return spool


def take_all(spool):
    taken = []
    while found := spool.peek(3):
        taken += found
        spool.advance(found)
    return taken


def test_lines_come_back_in_order_and_leave_nothing(tmp_path):
    spool = open_spool(tmp_path / "spool")
    for line in lines(*range(10)):
        spool.append(line)
    assert spool.waiting_bytes == 50
    assert spool.peek(2) == spool.peek(2) == lines(0, 1)
    assert take_all(spool) == lines(*range(10))
    assert spool.waiting_bytes == 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0
    spool.append(b"more\n")
    assert take_all(spool) == [b"more\n"]
    spool.close()
    assert not list((tmp_path / "spool").iterdir())


def test_many_files_are_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 12)
    spool = open_spool(tmp_path)
    for line in lines(*range(10)):
        spool.append(line)
    assert len(list(tmp_path.glob("*.spool"))) == 4
    spool.sync()
    assert take_all(spool) == lines(*range(10))
    spool.close()


def test_what_a_process_left_comes_first(tmp_path):
    first = open_spool(tmp_path)
    for line in lines(0, 1):
        first.append(line)
    first.advance(first.peek(1))
    first.close()
    second = open_spool(tmp_path)
    second.append(b"new\n")
    # What was taken may come again: whoever takes it knows it by its id.
    assert take_all(second) == [*lines(0, 1), b"new\n"]
    second.close()


def test_a_living_process_keeps_its_lines(tmp_path):
    first, second = open_spool(tmp_path), open_spool(tmp_path)
    first.append(b"first\n")
    second.append(b"second\n")
    third = open_spool(tmp_path)
    assert third.peek(5) == []
    assert take_all(second) == [b"second\n"]
    assert take_all(first) == [b"first\n"]
    for spool in (first, second, third):
        spool.close()


def test_the_torn_end_of_a_lost_process_is_no_line(tmp_path):
    (tmp_path / "00000000000000000001-7.000000.spool").write_bytes(b"whole\nto")
    (tmp_path / "00000000000000000002-7.000000.spool").write_bytes(b"")
    spool = open_spool(tmp_path)
    spool.append(b"new\n")
    assert take_all(spool) == [b"whole\n", b"new\n"]
    assert spool.waiting_bytes == 0
    spool.close()


def test_the_limit_holds(tmp_path):
    spool = open_spool(tmp_path, max_bytes=12)
    spool.append(b"0000\n")
    spool.append(b"0001\n")
    with pytest.raises(SpoolFullError, match="10 bytes wait"):
        spool.append(b"0002\n")
    spool.advance(spool.peek(1))
    spool.append(b"0003\n")
    assert take_all(spool) == lines(1, 3)
    spool.close()


def test_a_disk_that_takes_half_a_line_has_taken_none(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(b"0000\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        for _ in range(2):  # the first is written in part, the second not at all
            with pytest.raises(OSError, match=r"part|large"):
                spool.append(b"0001\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append(b"0002\n")
    assert take_all(spool) == lines(0, 2)
    spool.close()


def test_where_nothing_can_be_cut_off_another_file_begins(tmp_path, monkeypatch):
    spool = open_spool(tmp_path)
    spool.append(b"0000\n")
    write = os.write

    def fail(*_):
        raise OSError("broken")

    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OSError, match=r"broken|part"):
        spool.append(b"0001\n")
    monkeypatch.undo()
    spool.append(b"0002\n")
    assert take_all(spool) == lines(0, 2)
    spool.close()


def count_descriptors(folder):
    open_files = [item.path for item in psutil.Process().open_files()]
    return sum(path.startswith(str(folder)) for path in open_files)


def test_a_disk_that_refuses_to_sync_leaves_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 5)
    spool = open_spool(tmp_path)
    for line in lines(*range(4)):
        spool.append(line)
    before = count_descriptors(tmp_path)

    def fail(_):
        raise OSError("broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        spool.sync()
    assert before - count_descriptors(tmp_path) == 3  # the three full files
    spool.append(b"more\n")
    with pytest.raises(OSError, match="broken"):
        spool.close()
    assert count_descriptors(tmp_path) == 0
    monkeypatch.undo()
    following = open_spool(tmp_path)  # which finds no lock held
    assert take_all(following) == [*lines(*range(4)), b"more\n"]
    following.close()
