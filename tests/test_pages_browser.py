"""In a real browser no page runs, loads or hides what hostile texts hold, and it shows them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import hostile_pages
from tests.browser import CHROMIUM, Browser
from tests.hostile_pages import ATTACKS, CONTROLS, HOSTILE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH"),
]
_OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
_POKE = (
    "document.querySelectorAll('body *').forEach(e => { for (const kind of "
    "['mouseover', 'focus', 'click', 'error', 'load']) "
    "if (e.tagName !== 'A' && e.tagName !== 'SUMMARY') "
    "e.dispatchEvent(new Event(kind, {bubbles: false})); })"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path)
    yield made
    made.close()


def show(browser: Browser, page: Path) -> str:
    """Opens a page, pokes all of its elements, and returns what it shows, on one line."""
    browser.requests.clear()
    browser.open(page)
    browser.ask(_OPEN_ALL)
    browser.ask(_POKE)
    assert browser.ask("typeof window.ran") == "undefined"
    assert browser.troubles == []
    asked = {address for address in browser.requests if not address.startswith("data:")}
    assert asked == {page.as_uri()}
    frames = browser.ask("document.querySelectorAll('iframe, object, embed, base, form[action]')")
    assert not frames
    return " ".join(browser.ask("document.body.innerText").split())


def shown_whole(attack: str) -> str:
    return " ".join(attack.split())


MAKERS: dict[str, Callable[[Path, str], Path]] = {
    "report": hostile_pages.report_page,
    "tree": hostile_pages.tree_page,
    "atari": hostile_pages.atari_page,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_page_shows_every_attack_as_text(kind: str, browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / f"{kind} {hostile_pages.NAME}"
    os.makedirs(folder)
    text = HOSTILE if kind == "atari" else HOSTILE + CONTROLS
    shown = show(browser, MAKERS[kind](folder, text))
    for attack in ATTACKS if kind != "tree" else ATTACKS[:1]:  # the tree cuts long texts
        assert shown_whole(attack) in shown
    if kind == "report":
        for figure in sorted(folder.glob("*.svg")):
            show_figure(browser, figure)


def show_figure(browser: Browser, figure: Path) -> None:
    browser.requests.clear()
    browser.open(figure)
    assert browser.ask("typeof window.ran") == "undefined"
    assert browser.ask("document.documentElement.tagName") == "svg"
    assert browser.troubles == []
    asked = {address for address in browser.requests if not address.startswith("data:")}
    assert asked == {figure.as_uri()}


def test_pages_of_data_show_hostile_rows(browser: Browser, tmp_path: Path) -> None:
    for page in hostile_pages.data_pages(tmp_path / "data", HOSTILE):
        assert shown_whole(ATTACKS[1]) in show(browser, page)


def test_pages_of_searches_show_hostile_prompts_and_names(
    browser: Browser, policy_folder: Path, tmp_path: Path
) -> None:
    for page in hostile_pages.gain_pages(tmp_path / "gains", HOSTILE, policy_folder):
        shown = show(browser, page)
        assert "planned" in page.name or "<img src=x onerror=window.ran=1>" in shown


def test_page_of_the_demo_shows_hostile_responses(
    browser: Browser, demo_run: Path, tmp_path: Path
) -> None:
    page = hostile_pages.demo_page(tmp_path / "demo", HOSTILE, demo_run)
    assert shown_whole(ATTACKS[1]) in show(browser, page)


def test_the_check_sees_a_page_that_does_run_a_text(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><title>x</title><p>{ATTACKS[1]}", encoding="utf-8")
    with pytest.raises(AssertionError):
        show(browser, page)
