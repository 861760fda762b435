"""The page when something breaks off: the network, the tab, the answer; and in narrow places."""

import json

import pytest

from tests.support.waiting import wait_for

CHAT = "**/v1/chat/completions"


@pytest.fixture
def context(browser, running, keys):
    context = browser.new_context(viewport={"width": 360, "height": 740}, locale="en-US")
    context.add_init_script(f"sessionStorage.setItem('key', '{keys[1]['chief']}')")
    yield context
    context.close()


@pytest.fixture
def page(context, running):
    return open_page(context, running.url)


def open_page(context, url):
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#model option:nth-child(3)", state="attached")
    return page


def ask(page, question="?"):
    page.fill("#question", question)
    page.keyboard.press("Enter")


def read_answer(page):
    page.wait_for_selector("#stop", state="hidden")
    return page.locator("#turns li.theirs").last.inner_text()


def stream(*texts, has_end=True):
    """A stream of these pieces, as the service sends it."""
    choices = [{"delta": {"content": text}} for text in texts]
    events = [{"id": "chatcmpl-1", "choices": [choice]} for choice in choices]
    if has_end:
        limbeck = {"tier": "small", "route_reason": "named", "status": "answered"}
        events.append({"id": "chatcmpl-1", "choices": [{"delta": {}}], "limbeck": limbeck})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return {"content_type": "text/event-stream", "body": body}


def hold(page):
    """Keeps requests for answers open; what comes back waits for one of them and gives it."""
    held = []

    def keep(route):
        held.append(route)

    def take(place=0):
        wait_for(lambda: page.evaluate("1") and len(held) > place)
        return held[place]

    page.route(CHAT, keep)
    return take


def test_an_answer_that_breaks_off_stays_as_far_as_it_came(page):
    page.route(CHAT, lambda route: route.fulfill(**stream("half of it", has_end=False)))
    ask(page)
    shown = read_answer(page)
    assert "half of it" in shown and "failed: The connection broke off." in shown


def test_what_a_proxy_answers_in_the_services_place_is_named(page):
    html = {"status": 502, "content_type": "text/html", "body": "<html>Bad gateway</html>"}
    page.route(CHAT, lambda route: route.fulfill(**html))
    ask(page)
    assert "failed: HTTP 502" in read_answer(page)


def test_an_answer_without_a_word_says_so(page):
    page.route(CHAT, lambda route: route.fulfill(**stream("")))
    ask(page)
    assert "(The model wrote nothing.)" in read_answer(page)


def test_without_a_network_nothing_is_lost_and_everything_says_so(page, context):
    page.route(CHAT, lambda route: route.fulfill(**stream("yes")))
    ask(page)
    read_answer(page)
    page.unroute(CHAT)
    context.set_offline(True)
    page.get_by_role("button", name="Not helpful").click()
    page.fill(".rate input", "no")
    page.locator(".rate form button").click()
    page.wait_for_selector(".rate [role=status]")
    assert page.inner_text(".rate [role=status]") == "failed: The server cannot be reached."
    assert page.input_value(".rate input") == "no"
    ask(page, "still there?")
    assert "failed: The server cannot be reached." in read_answer(page)
    for tab in ("load", "review"):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(f"#{tab}-note:visible")
        assert page.inner_text(f"#{tab}-note").endswith("The server cannot be reached.")


def test_the_language_may_change_in_the_middle_of_an_answer(page):
    take = hold(page)
    ask(page)
    request = take()
    page.click("#language")
    request.fulfill(**stream("the ", "end"))
    assert "the end" in read_answer(page)
    assert page.locator("#turns li.theirs").last.get_by_role("button").count() == 2


@pytest.mark.parametrize("reads_above", [False, True])
def test_a_long_answer_is_followed_by_whoever_is_at_its_end(page, reads_above):
    take = hold(page)
    for place in range(2):
        ask(page)
        request = take(place)
        if reads_above and place:
            page.evaluate("document.getElementById('content').scrollTop = 0")
        request.fulfill(**stream(*["word\n"] * 60))
        read_answer(page)
    content = "document.getElementById('content')"
    left = f"{content}.scrollHeight - {content}.clientHeight - {content}.scrollTop"
    assert (page.evaluate(left) < 2) is not reads_above
    assert page.evaluate(f"{content}.scrollTop === 0") is reads_above


def test_clearing_stops_what_is_being_answered(page):
    take = hold(page)
    ask(page)
    take()
    page.click("#clear")
    page.wait_for_selector("#stop", state="hidden")
    assert page.locator("#turns li").count() == 0


def test_a_question_outlives_its_page(page):
    take = hold(page)
    ask(page, "who asks?")
    take()
    page.reload()
    page.wait_for_selector("#turns li.theirs")
    assert "who asks?" in page.inner_text("#turns li.mine")
    assert "stopped" in page.inner_text("#turns li.theirs")


def test_two_tabs_are_one_conversation(page, context, running):
    other = open_page(context, running.url)
    take = hold(page)
    other.route(CHAT, lambda route: route.fulfill(**stream("second")))
    ask(page, "first?")
    request = take()
    ask(other, "second?")
    assert "second" in read_answer(other)
    request.fulfill(**stream("first"))
    page.wait_for_selector("#stop", state="hidden")
    for tab in (page, other):
        tab.wait_for_selector("#turns li:nth-child(4)")
        wait_for(lambda tab=tab: "first" in tab.locator("#turns li.theirs").first.inner_text())
        assert tab.locator("#turns li.mine .answer").all_inner_texts() == ["first?", "second?"]


def test_a_question_runs_in_the_direction_of_its_script(page):
    page.route(CHAT, lambda route: route.fulfill(**stream("نعم")))
    ask(page, "ما هي عاصمة فرنسا؟")
    read_answer(page)
    directions = "[...document.querySelectorAll('.answer')].map(e => getComputedStyle(e).direction)"
    assert page.evaluate(directions) == ["rtl", "rtl"]


def test_a_long_question_is_sent_whole(page):
    take = hold(page)
    page.focus("#question")
    page.keyboard.insert_text("z" * 25_000)
    page.keyboard.press("Enter")
    assert len(take().request.post_data_json["messages"][-1]["content"]) == 25_000
    page.click("#stop")


@pytest.mark.parametrize(("width", "height"), [(740, 360), (320, 256)])
def test_on_its_side_and_in_large_letters_the_whole_page_scrolls(page, width, height):
    page.route(CHAT, lambda route: route.fulfill(**stream("word\n" * 40)))
    page.set_viewport_size({"width": width, "height": height})
    ask(page)
    read_answer(page)
    assert page.evaluate("document.getElementById('content').clientHeight") > height


def test_a_proxy_may_put_the_page_below_a_path(context, running):
    below = running.url + "/limbeck"
    asked = []

    def forward(route):
        asked.append(route.request.url)
        route.fulfill(response=route.fetch(url=running.url + asked[-1].removeprefix(below)))

    context.route(below + "/**", forward)
    page = open_page(context, below + "/")
    page.click("#tab-load")
    page.wait_for_selector("#cost tr.sum")
    assert below + "/v1/models" in asked and below + "/metrics" in asked


def test_a_key_that_is_given_with_a_question_brings_the_models(browser, running, keys):
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.url)
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    ask(page)
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", keys[1]["ward"])
    page.keyboard.press("Enter")
    page.wait_for_selector("#model option:nth-child(3)", state="attached")
    page.wait_for_selector("#turns li.theirs .facts:not(:empty)")
    assert not page.locator("#turns li.error").count()
    context.close()
