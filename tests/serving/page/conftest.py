"""The page in a real browser, of a service of two tiers with prices, keys and a journal."""

import shutil

import pytest

from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.config import TierConfig
from limbeck.serving.facts import make_store
from limbeck.serving.journal.open import open_journal
from limbeck.serving.keys import add_key
from limbeck.serving.price import PriceConfig
from tests.support.running_service import Running

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DESKTOP = {"viewport": {"width": 1200, "height": 800}, "locale": "zh-CN", "color_scheme": "light"}
PHONE = {"viewport": {"width": 360, "height": 740}, "locale": "en-US", "color_scheme": "dark"}
PRICES = {"large": {"per_million_output_tokens": 8.0}, "small": {"per_hour": 3.6}}


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A file of keys, and by their names the keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    scopes = {"chief": ("admin",), "ward": ("chat", "feedback")}
    return path, {name: add_key(path, name=name, scopes=item) for name, item in scopes.items()}


@pytest.fixture(scope="session")
def journal(tmp_path_factory):
    found = open_journal(str(tmp_path_factory.mktemp("page") / "journal.sqlite"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def running(bundle, keys, journal, pack):
    """A service of two tiers with prices, keys and a journal."""
    facts = make_store(make_facts(pack))
    tiers = [
        TierConfig(
            name=name,
            model=str(bundle),
            max_rows=4,
            max_waiting=2,
            price=PriceConfig(currency="CNY", **price),
        )
        for name, price in PRICES.items()
    ]
    with Running(bundle, keys=keys[0], journal=journal, tiers=tiers, facts=facts) as found:
        yield found


# Of a module: while Playwright is open, no test in the same process can run an event loop.
@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no browser: install Debian's chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request, browser, running, keys):
    """The page, which may complain of nothing and load nothing from elsewhere."""
    context = browser.new_context(**request.param)
    context.add_init_script(f"sessionStorage.setItem('key', '{keys[1]['chief']}')")
    page = context.new_page()
    faults, elsewhere = [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda item: elsewhere.append(item.url))
    page.goto(running.url)
    page.wait_for_selector("#model option:nth-child(3)", state="attached")
    yield page
    assert not faults
    assert all(url.startswith(running.url) for url in elsewhere)
    context.close()
