"""The page in a real browser: asked, read aloud to a screen reader's rules, on a phone."""

import os
import secrets
import signal

from limbeck.serving.journal.database import open_database, parse_url
from limbeck.serving.journal.queries import ExchangeFilter, read_all
from tests.support.journal import make_exchange, make_feedback
from tests.support.waiting import wait_for


def ask(page, question):
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop", state="hidden")


def find_violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]]


def is_wide(page):
    return page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )


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
    assert page.locator("#turns .mine .answer").inner_text() == "高血压有哪些症状？"
    page.click("#clear")
    assert page.locator("#turns li").count() == 0


def test_markup_in_a_question_stays_text(page):
    ask(page, "<img src=x onerror=alert(1)><b>b</b>")
    assert page.locator("#turns b, #turns img").count() == 0
    assert "<b>b</b>" in page.locator("#turns .mine .answer").inner_text()


def test_tiers_side_by_side_and_the_load(page):
    page.click("#tab-compare")
    ask(page, "哮喘看什么科？")
    assert page.locator(".column h3").all_inner_texts() == ["large", "small"]
    assert all(page.locator(".column .answer").all_inner_texts())
    assert page.inner_text("#asked") == "哮喘看什么科？"
    assert not find_violations(page)
    page.click("#tab-load")
    page.wait_for_selector("#cost tr.sum")
    for table in ("load", "cost"):
        heads = page.locator(f"#{table} tr:not(.sum) th").all_inner_texts()
        assert heads[:2] == ["large", "small"] and set(heads[2:]) <= {"facts"}
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


def test_what_it_costs_beside_the_largest_tier_alone(page):
    page.select_option("#model", "large")
    ask(page, "哮喘看什么科？")
    page.click("#tab-load")
    page.wait_for_selector("#cost tr.sum")
    large, small, *_, both = [row.split("\t") for row in page.locator("#cost tr").all_inner_texts()]
    assert 1 <= int(large[1]) <= int(both[1])
    assert int(large[4]) + int(small[4]) == int(both[4])  # requests given
    assert float(large[7]) > 0  # processor seconds
    assert "¥" in large[3] and "¥" in both[3]
    shown = page.inner_text("#cost-compared")
    assert "large" in shown and "¥" in shown


def put(journal, *items):
    for item in items:
        assert journal.put(item)
    assert journal.flush(60.0)


def test_a_reviewer_accepts_corrects_and_dismisses(page, journal):
    name = f"r{secrets.token_hex(4)}"
    waiting = [
        make_exchange(0, id=f"{name}-0", question="头疼怎么办？", status="declined"),
        make_exchange(1, id=f"{name}-1", question="<b>痛风</b>吃什么？", history=("早", "你好")),
        make_exchange(2, id=f"{name}-2", question="我叫张伟，咳嗽？", status="withheld"),
    ]
    put(journal, *waiting, make_feedback(0, f"{name}-1", id=f"{name}-f", thumbs="down"))
    page.click("#tab-review")
    page.wait_for_selector(".card")
    cards = [page.locator(f".card[data-id='{name}-{number}']") for number in range(3)]
    assert cards[1].locator("h3").inner_text() == "<b>痛风</b>吃什么？"
    assert "张伟" not in cards[2].inner_text()
    assert not find_violations(page)
    assert not is_wide(page)

    correct = cards[0].locator("button.main")
    assert correct.is_disabled()
    cards[0].locator("textarea").fill("休息，多喝水")
    correct.click()
    cards[0].wait_for(state="detached")
    buttons = cards[1].locator(".verdict button:not(.main)")
    buttons.nth(0).focus()
    page.keyboard.press("Enter")  # accept
    cards[1].wait_for(state="detached")
    assert page.evaluate("document.activeElement.tagName") in ("H2", "H3")
    cards[2].locator(".verdict button:not(.main)").nth(1).click()  # dismiss
    cards[2].wait_for(state="detached")
    assert page.inner_text("#said")

    engine = open_database(parse_url(journal.config.url), timeout_seconds=5.0)
    chosen = ExchangeFilter(ids=tuple(item.id for item in waiting))
    said = {row.exchange.id[-1]: row.feedback[-1] for row in read_all(engine, chosen)}
    engine.dispose()
    verdicts = {id_: (item.role, item.thumbs, item.corrected_answer) for id_, item in said.items()}
    assert verdicts == {
        "0": ("reviewer", "down", "休息，多喝水"),
        "1": ("reviewer", "up", ""),
        "2": ("reviewer", "none", ""),
    }


def test_filters_and_pages_of_the_queue(page, journal):
    name = f"p{secrets.token_hex(4)}"
    tier = {"tier": "large", "status": "withheld"}
    put(journal, *(make_exchange(number, id=f"{name}-{number}", **tier) for number in range(25)))
    page.click("#tab-review")
    page.wait_for_selector("#review-tier option:nth-child(3)", state="attached")
    page.select_option("#review-tier", "large")
    page.select_option("#review-reason", "withheld")
    page.wait_for_selector("#review-more:visible")
    wait_for(lambda: page.locator(".card").count() == 20)
    page.click("#review-more")
    page.wait_for_selector(f".card[data-id='{name}-0']")
    page.select_option("#review-tier", "small")
    wait_for(lambda: page.locator(f".card[data-id^='{name}']").count() == 0)


def test_keys_are_asked_for_and_open_what_they_are_good_for(browser, running, keys):
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(running.url)
    page.wait_for_selector("#key-dialog[open]")
    assert page.locator("#key-wrong").is_hidden()
    assert not find_violations(page)
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-wrong:visible")
    page.fill("#key", keys[1]["ward"])
    page.keyboard.press("Enter")
    page.wait_for_selector("#model option:nth-child(3)", state="attached")
    ask(page, "哮喘看什么科？")
    for tab, note in (("#tab-load", "#load-note"), ("#tab-review", "#review-note")):
        page.click(tab)
        page.wait_for_selector(f"{note} button")
        assert "无权" in page.inner_text(note)
        assert not find_violations(page)
    assert page.locator(".card").count() == 0
    page.click("#review-note button")
    page.fill("#key", keys[1]["chief"])
    page.keyboard.press("Enter")
    page.wait_for_selector("#review-note", state="hidden")
    context.close()


def test_both_languages_and_no_sideways_scrolling(page):
    language = page.get_attribute("html", "lang")
    text = page.inner_text("#send")
    page.click("#language")
    assert page.get_attribute("html", "lang") != language
    assert page.inner_text("#send") != text
    page.click("#theme")
    assert not find_violations(page)
    for tab in ("chat", "compare", "load", "review"):
        page.click(f"#tab-{tab}")
        assert not is_wide(page)


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
