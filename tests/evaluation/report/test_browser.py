"""The report's page in a real browser: it is drawn whole, offline, in both languages."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.support import tiny_recipe

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OFFLINE = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1200,3000",
)


@pytest.mark.skipif(CHROMIUM is None, reason="no browser: install Debian's package chromium")
def test_a_browser_draws_every_row_of_the_report(tmp_path):
    page = tiny_recipe.runs() / "tiny" / "report" / "report.html"
    picture = tmp_path / "page.png"
    found = subprocess.run(
        [
            CHROMIUM,
            *OFFLINE,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    )
    for shown in ("评估报告", "Evaluation report", "teacher", "bundle", "<svg"):
        assert shown in found.stdout
    assert "CONSOLE" not in found.stderr, found.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    # A page that stays blank, or shows an error, has a handful of colours.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
