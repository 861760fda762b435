"""Says what is publicly known of faults in the pinned packages; fails where a release mends one.

    python .ci/audit.py

pip-audit, in a folder of its own, asks the package index. Where it cannot be installed or the
index does not answer, this says so and lets everything else go on: a fault of the network is none
of the pins. A fault without a mended release fails nothing either; it is named.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = ROOT / "constraints.txt"
FOLDER = ROOT / ".venv" / "audit"
TOOL = "pip-audit==2.10.1"
SECONDS = 40
"""For each of two steps; both together take ten on a usual network."""


def install() -> None:
    """pip-audit in its folder, where it is not yet."""
    if not (FOLDER / "pip_audit").is_dir():
        words = ["install", "-qq", "--no-compile", "--target", str(FOLDER), TOOL]
        run_python(["-m", "pip", *words]).check_returncode()


def run_python(words: list[str]) -> subprocess.CompletedProcess[str]:
    """What became of a program that may import what is in the folder."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )


def audit() -> dict[str, list[dict[str, object]]]:
    """What pip-audit reports; it exits with 1 where it found something."""
    words = ["-r", str(PINS), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    found = run_python(["-m", "pip_audit", *words, "--format", "json", "--timeout", "10"])
    if not found.stdout.strip():
        raise OSError(found.stderr.strip().rpartition("\n")[2])
    return json.loads(found.stdout)


def judge(report: dict[str, list[dict[str, object]]]) -> tuple[list[str], bool]:
    """Lines for people, and whether a release mends what is known."""
    asked = report["dependencies"]
    known = [item for item in asked if "skip_reason" not in item]
    lines, is_mendable = [], False
    for item in known:
        for fault in item["vulns"]:
            mended = ", ".join(fault["fix_versions"])
            is_mendable = is_mendable or bool(mended)
            what = f"mended in {mended}: raise the pin" if mended else "no release mends it"
            names = ", ".join([fault["id"], *fault.get("aliases", ())])
            lines.append(f"  {item['name']} {item['version']}: {names}; {what}")
    if not known:
        return [f"dependency audit: not done, the index knows none of {len(asked)} pins"], False
    head = f"dependency audit: {len(lines)} known faults in {len(known)} of {len(asked)} pins"
    if left := len(asked) - len(known):
        head += f"; {left} are not in the index, and not audited"
    return [head, *lines], is_mendable


def main() -> int:
    try:
        install()
        report = audit()
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        print(f"dependency audit: not done ({type(error).__name__}: {error})")
        return 0
    lines, is_mendable = judge(report)
    print("\n".join(lines))
    return int(is_mendable)


if __name__ == "__main__":
    sys.exit(main())
