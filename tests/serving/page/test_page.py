"""The page in a real browser: asked, read aloud to a screen reader's rules, on a phone."""

import os
import shutil
import signal

import pytest

from limbeck.data.packs.load import load_pack
from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import make_store
from tests.support.running_service import Running
from tests.support.waiting import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: install Debian's chromium")
DESKTOP = {"viewport": {"width": 1200, "height": 800}, "locale": "zh-CN", "color_scheme": "light"}
PHONE = {"viewport": {"width": 360, "height": 740}, "locale": "en-US", "color_scheme": "dark"}


@pytest.fixture(scope="module")
def running(bundle):
    facts = make_store(make_facts(load_pack("medical")))
    with Running(bundle, facts=facts) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request, browser, running):
    """The page, which may complain of nothing and load nothing from elsewhere."""
    context = browser.new_context(**request.param)
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


def ask(page, question):
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop", state="hidden")


def find_violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]]


def test_a_question_is_answered_rated_and_kept(page):
    page.select_option("#model", "small")
    ask(page, "高血压有哪些症状？")
    answer = page.locator("#turns li.theirs").last
    assert answer.locator(".answer").inner_text()
    assert "small" in answer.locator(".facts").inner_text()
    assert answer.get_by_role("button").count() == 2
    assert not find_violations(page)
    page.reload()
    page.wait_for_selector("#turns li.theirs")
    assert page.locator("#turns li.mine").inner_text() == "高血压有哪些症状？"
    page.click("#clear")
    assert page.locator("#turns li").count() == 0


def test_markup_in_a_question_stays_text(page):
    ask(page, "<img src=x onerror=alert(1)><b>b</b>")
    assert page.locator("#turns b, #turns img").count() == 0
    assert "<b>b</b>" in page.locator("#turns li.mine").inner_text()


def test_tiers_side_by_side_and_the_load(page):
    page.click("#tab-compare")
    ask(page, "哮喘看什么科？")
    assert page.locator(".column h3").all_inner_texts() == ["large", "small"]
    assert all(page.locator(".column .answer").all_inner_texts())
    assert not find_violations(page)
    page.click("#tab-load")
    page.wait_for_selector("#load tr")
    tiers = [row.split()[0] for row in page.locator("#load tr").all_inner_texts()]
    assert tiers[:2] == ["large", "small"] and set(tiers[2:]) <= {"facts"}
    assert not find_violations(page)


def test_a_stored_fact_shows_its_source_and_is_counted(page):
    ask(page, "高血压有哪些症状？")
    answer = page.locator("#turns li.theirs").last
    shown = answer.locator(".facts").inner_text()
    assert "medical:高血压|symptoms" in shown and "undefined" not in shown
    assert ("知识条目" if page.get_attribute("html", "lang") == "zh-CN" else "stored fact") in shown
    assert answer.locator(".answer").inner_text().startswith("头晕、头痛、心悸、颈项板紧")
    assert not find_violations(page)
    page.click("#tab-load")
    page.wait_for_selector("#load tr:nth-child(3)")
    assert page.locator("#load tr").last.inner_text().split()[0] == "facts"
    assert not find_violations(page)


def test_both_languages_and_no_sideways_scrolling(page):
    language = page.get_attribute("html", "lang")
    text = page.inner_text("#send")
    page.click("#language")
    assert page.get_attribute("html", "lang") != language
    assert page.inner_text("#send") != text
    page.click("#theme")
    assert not find_violations(page)
    wide = page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    assert not wide


def test_an_answer_is_stopped_by_whoever_asked(page, running):
    engine = running.service.tiers["small"].engine
    page.select_option("#model", "small")
    os.kill(engine.pid, signal.SIGSTOP)  # so that the answer cannot end before it is stopped
    try:
        page.fill("#question", "高血压有哪些症状？")
        page.click("#send")
        wait_for(lambda: engine.num_running == 1)
        page.click("#stop")
        page.wait_for_selector("#stop", state="hidden")
        wait_for(lambda: engine.num_running == 0)
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    ask(page, "哮喘看什么科？")
    assert page.locator("#turns li.theirs .answer").last.inner_text()
