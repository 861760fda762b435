"""What a manifest and a report record of the machine."""

import os
import platform

import torch

from limbeck.env import machine


def test_versions_of_installed_and_absent_packages():
    found = machine.package_versions(("torch", "no-such-package"), absent="absent")
    assert found == {"torch": torch.__version__, "no-such-package": "absent"}


def test_cpu_name_from_the_system_and_without_it(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor: 0\nmodel name\t: Some CPU @ 2.0 GHz\nmodel name\t: other\n")
    monkeypatch.setattr(machine, "CPU_INFO", info)
    assert machine.cpu_name() == "Some CPU @ 2.0 GHz"
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "absent")
    assert machine.cpu_name() == (platform.processor() or platform.machine())


def test_describe_machine():
    found = machine.describe_machine()
    assert list(vars(found)) == ["python", "system", "cpu", "cpu_count", "memory_bytes"]
    assert found.cpu_count == os.cpu_count()
    assert found.memory_bytes > 2**28
