"""No text of data, models, names or settings becomes an element, attribute or script of a page."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prefsearch.storage.visible_text import printable
from tests import hostile_pages
from tests.hostile_pages import ATTACKS, CONTROLS, HOSTILE

_PLAIN = "some words"


class _Page(HTMLParser):
    """The elements of a page with the names of their attributes, its addresses and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: set[str] = set()
        self.comments: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        named = ("href", "src", "xlink:href", "action", "data", "poster")
        self.addresses |= {value or "" for name, value in attrs if name in named}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" not in self._open and "style" not in self._open:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def check(self) -> None:
        """Whether it holds nothing that loads, and no handlers."""
        addresses = self.addresses - {"./figures/tree.html", "./file.html"}
        assert all(a.startswith(("#", "data:")) for a in addresses), addresses
        tags = {tag for tag, _ in self.elements}
        assert not tags & {"iframe", "object", "embed", "base", "foreignobject", "frame", "audio"}
        assert not [name for _, names in self.elements for name in names if name.startswith("on")]
        programs = [names for tag, names in self.elements if tag == "script" and "id" not in names]
        assert len(programs) <= 1  # the tree page's; its data are scripts with an id


MAKERS: dict[str, Callable[[Path, str], Path]] = {
    "report": hostile_pages.report_page,
    "tree": hostile_pages.tree_page,
    "atari": hostile_pages.atari_page,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_page_has_the_elements_of_the_same_page_of_plain_words(kind: str, tmp_path: Path) -> None:
    plain = _Page(MAKERS[kind](_folder(tmp_path / "plain"), _PLAIN))
    text = HOSTILE if kind == "atari" else HOSTILE + CONTROLS
    hostile = _Page(MAKERS[kind](_folder(tmp_path / "hostile"), text))
    hostile.check()
    drawn = {"svg", "g", "path", "use", "defs", "clippath", "rect", "style"}  # glyphs differ
    kept = [
        [element for element in page.elements if element[0] not in drawn]
        for page in (plain, hostile)
    ]
    assert kept[1] == kept[0]
    for tag, names in set(hostile.elements) - set(plain.elements):
        assert tag in drawn
        assert set(names) <= {"d", "id", "style", "transform", "href"}
    assert not [comment for comment in hostile.comments if "window" in comment]
    assert " ".join(printable(ATTACKS[0]).split()) in hostile.text


def _folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_pages_of_data_show_hostile_rows_as_text(tmp_path: Path) -> None:
    for path in hostile_pages.data_pages(tmp_path / "data", HOSTILE):
        page = _Page(path)
        page.check()
        assert ATTACKS[1] in page.text


def test_pages_of_searches_show_hostile_prompts_and_names_as_text(
    policy_folder: Path, tmp_path: Path
) -> None:
    for path in hostile_pages.gain_pages(tmp_path / "gains", HOSTILE, policy_folder):
        page = _Page(path)
        page.check()
        if "planned" not in path.name:
            assert "<img src=x onerror=window.ran=1>" in page.text


def test_page_of_the_demo_shows_hostile_responses_as_text(demo_run: Path, tmp_path: Path) -> None:
    page = _Page(hostile_pages.demo_page(tmp_path / "demo", HOSTILE, demo_run))
    page.check()
    assert ATTACKS[1] in page.text
