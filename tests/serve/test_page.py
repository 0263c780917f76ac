"""The page in a real Chromium: what a person does with it, by mouse, keyboard and touch, in two languages."""

import os
import re
import shutil
from pathlib import Path

import pytest

from diptych.serve.app import STATIC
from tests.serve.conftest import halves, picture
from tests.serve.telling import answerer, drawer, served, writer

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium here; name one in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open a page; at the end see that it asked nobody but its own host, and that no script failed."""
    contexts, outside, failed = [], [], []

    def go(server, path="/", **kind):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **kind})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda one: outside.append(one.url) if _elsewhere(one.url, server.address) else None)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(server.address + path)
        return page

    yield go
    for context in contexts:
        context.close()
    assert outside == []
    assert failed == []


def tabs(page) -> list[str]:
    """Return the names of the page's tabs, once the page has been told what the run offers."""
    page.wait_for_selector("#tabs button")
    return page.locator("#tabs button").all_inner_texts()


def _elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address + "/", "data:", f"blob:{address}/"))


def dropped(page, data: bytes, where: str) -> None:
    """Drop a picture file onto an element, as a mouse would."""
    page.evaluate(
        """([bytes, where]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
            document.querySelector(where).dispatchEvent(
                new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried }));
        }""",
        [list(data), where],
    )


def test_searching_by_text_why_and_more_like_this(server, visit, table):
    page = visit(server)
    page.wait_for_selector("#results li img")
    assert page.locator("#results li").count() == 20  # a sample, before anything is asked
    assert tabs(page) == ["Search", "Tags", "Why"]
    page.keyboard.type("a red circle")  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("#results .score")
    assert "24 nearest of 60 pictures" in page.inner_text("#search-note")
    scores = [float(text) for text in page.locator("#results .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.url.endswith("#q=a%20red%20circle")
    page.click("#more")
    page.wait_for_selector("#results li:nth-child(48)")
    page.locator("#results li button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#card .words span")
    assert page.locator("#card .words span").all_inner_texts() == ["a", "red", "circle"]
    heat, whole = (page.locator(f"#card-frame .{name}").bounding_box() for name in ("heat", "whole"))
    assert all(abs(heat[name] - whole[name]) < 1 for name in ("x", "y", "width", "height"))
    first = page.inner_text("#card-text")
    page.keyboard.press("ArrowRight")
    page.locator("#card-text", has_not_text=first).wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()
    page.locator("#results li button").first.click()
    page.click("#card-like")
    page.get_by_text("More like this picture:").wait_for()
    page.go_back()
    page.get_by_text(re.compile("^24 nearest")).wait_for()
    data = (table.parent / "photos" / "007.png").read_bytes()
    dropped(page, data, "main")
    page.locator("#results .score", has_text="1.000").first.wait_for()


def test_tags_and_why_of_a_dropped_picture(server, visit):
    page = visit(server)
    page.click("[data-tab=tags]")
    page.click("#tags-form button")
    page.get_by_text("Choose a picture first").wait_for()
    dropped(page, picture("green"), "#tags .drop")
    page.fill("#tags-labels", "a red circle\na green star, a dog")
    page.click("#tags-form button")
    page.wait_for_selector("#tags-found li:nth-child(3)")
    shares = [float(text.split()[0]) for text in page.locator("#tags-found span").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    page.locator("[data-tab=tags]").focus()
    page.keyboard.press("ArrowRight")
    dropped(page, b"no picture", "#why .drop")
    page.fill("#why-text", "a green star")
    page.keyboard.press("Enter")
    page.get_by_text("the upload is no picture").wait_for()
    dropped(page, picture("green", size=(90, 60)), "#why .drop")
    page.fill("#why-text", "a green star")
    page.keyboard.press("Enter")
    page.wait_for_selector("#why-found .words span:nth-child(3)")
    assert page.locator("#why .heat").is_visible()
    page.click("#why-found label")
    page.wait_for_selector("#why .frame.bare")


def test_a_phone_in_chinese_and_in_the_dark(server, visit):
    phone = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    page = visit(server, locale="zh-CN", color_scheme="dark", **phone)
    page.wait_for_selector("#results li img")
    assert tabs(page) == ["搜索", "标签", "解释"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it must not scroll sideways"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 23, 37)"
    page.fill("#search-text", "红色的圆")
    page.tap("#search-form button")
    page.wait_for_selector("#results .score")
    page.locator("#results li button").first.tap()
    page.wait_for_selector("#card .words span")
    box = page.locator("#card").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.tap("#card-close")
    page.tap("#language")
    assert tabs(page) == ["Search", "Tags", "Why"]
    assert page.evaluate("document.documentElement.lang") == "en"


def test_a_captioner_shows_where_each_word_comes_from(visit):
    with served(writer()) as server:
        page = visit(server)
        assert tabs(page) == ["Why", "Caption"]
        page.click("[data-tab=caption]")
        page.click("#caption-form > button")
        page.get_by_text("Choose a picture first").wait_for()
        dropped(page, halves(), "#caption .drop")
        page.click("#caption-form > button")
        page.wait_for_selector("#caption-why .words button")
        assert page.locator("#caption-found .choice").count() == 3
        first = page.locator("#caption-found button").first
        assert first.get_attribute("aria-pressed") == "true"
        words = page.locator("#caption-why .words button")
        assert " ".join(words.all_inner_texts()).split() == first.inner_text().split()
        page.locator("#caption-found button").nth(1).click()
        page.wait_for_selector("#caption-why .words button")
        assert page.locator("#caption-found [aria-pressed=true]").count() == 1
        page.click("[data-tab=why]")
        dropped(page, halves(), "#why .drop")
        page.fill("#why-text", "a small green star")
        page.keyboard.press("Enter")
        words = page.locator("#why-found .words button")
        words.nth(3).wait_for()
        heat = page.locator("#why .heat")
        whole = heat.get_attribute("src")
        words.first.focus()
        page.keyboard.press("Enter")
        assert words.first.get_attribute("aria-pressed") == "true"
        assert heat.get_attribute("src") != whole
        page.keyboard.press("Enter")
        assert heat.get_attribute("src") == whole


def test_an_answerer_is_asked_and_says_why(visit):
    with served(answerer()) as server:
        page = visit(server, locale="zh-CN")
        assert tabs(page) == ["提问"]
        dropped(page, halves(), "#ask .drop")
        page.fill("#ask-text", "what colour is the circle?")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-why .words span")
        answers = page.locator("#ask-found b").all_inner_texts()
        assert len(answers) == 5
        assert page.inner_text("#ask-why strong") == f"为什么是“{answers[0]}”？"
        page.locator("#ask-found button").nth(2).click()
        page.get_by_text(f"为什么是“{answers[2]}”？").wait_for()
        assert page.locator("#ask .heat").count() == 1


def test_a_system_that_draws_is_told_what(visit):
    with served(drawer()) as server:
        page = visit(server)
        assert tabs(page) == ["Draw"]
        page.fill("#generate-text", "a red circle")
        page.keyboard.press("Enter")
        page.wait_for_selector("#generate-found li:nth-child(8) img")
        first = page.locator("#generate-found img").first.get_attribute("src")
        page.click("#generate-other")
        page.wait_for_function("first => document.querySelector('#generate-found img').src !== first", arg=first)
        assert page.locator("#generate-found a").first.get_attribute("download") == "a red circle 1-1.png"


def test_a_token_is_asked_for_or_comes_with_the_address(begin, visit):
    server = begin("--token", "open sesame")
    assert "#token=open%20sesame" in server.said
    page = visit(server)
    page.fill("#door-token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#door[open]")
    page.fill("#door-token", "open sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results li img")
    page = visit(server, "/#token=open%20sesame")
    page.wait_for_selector("#results li img")
    assert "token" not in page.url
    assert page.locator("#results img").first.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64


def test_the_api_can_be_tried_on_its_own_page(server, visit):
    page = visit(server, "/docs")
    page.locator("summary", has_text="/api/search/text").click()
    page.locator("details[open] button", has_text="Try").click()
    page.locator("details[open] pre", has_text='"results"').wait_for()
    assert "curl" in page.locator("details[open] pre").first.inner_text()


def test_both_languages_say_the_same_things():
    text = (STATIC / "words.js").read_text(encoding="utf-8")
    block = text[text.index("WORDS = {") : text.index("\n};")]
    first, second = (set(re.findall(r'"([\w.]+)": "', part)) for part in block.split("\n  zh: {"))
    assert first == second
    used = set()
    for path in STATIC.iterdir():
        found = re.findall(r'(?:say\(|data-(?:say|hint|title)=)"([\w.]+)"', path.read_text(encoding="utf-8"))
        used |= set(found)
    assert used - first == set()


def test_no_file_of_the_page_names_another_host():
    for path in Path(STATIC).iterdir():
        for host in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text(encoding="utf-8")):
            assert host == "http://www.w3.org", f"{path.name}: {host}"
