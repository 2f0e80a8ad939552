"""The report escapes what it is given, stands alone, and reads well to machines too."""

import os
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefsearch.report.page import Report, format_cell
from prefsearch.statistics.intervals import Interval
from prefsearch.storage.errors import StorageError
from search.evaluation.figures import Curve, gain_curves

HOSTILE = '<script>alert("x")</script> & <img src="http://evil.example/a.png" onerror=x>'
NAMESPACES = {"http://www.w3.org/2000/svg"}


class Page(HTMLParser):
    """Reads a page into elements and checks that every tag is closed."""

    VOID = frozenset({"meta", "link", "br", "img", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def full_report(folder: Path) -> Report:
    curve = Curve("a <b>", [1.0, 10.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 2.0], "gold")
    png, gain = gain_curves([curve], folder / "gain", x_label="x", y_label="y", title="t")
    return (
        Report(f"Title {HOSTILE}", subtitle=HOSTILE)
        .section(HOSTILE, f"First {HOSTILE}\n\nSecond")
        .table([{"planner": HOSTILE, "n": 1}], {"planner": HOSTILE, "n": "n"}, caption=HOSTILE)
        .figure(gain, alt=f'alt " {HOSTILE}', caption=HOSTILE)
        .figure(png, alt="a curve", caption="again")
        .section("Examples")
        .examples(HOSTILE, [(HOSTILE, f"{HOSTILE}\nnext", {HOSTILE: HOSTILE})])
        .preformatted(f"{HOSTILE}\n  next", summary=HOSTILE)
        .settings(HOSTILE, {HOSTILE: {HOSTILE: HOSTILE}})
    )


def test_everything_given_is_escaped(tmp_path: Path) -> None:
    page = Page(full_report(tmp_path).html())
    assert not page.all("script")
    assert not page.all("img")
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.text.count(HOSTILE) >= 13
    assert page.all("svg")[0]["aria-label"] == f'alt " {HOSTILE}'


def test_report_refers_to_no_host_and_forbids_it(tmp_path: Path) -> None:
    page = Page(full_report(tmp_path).html())
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if value is None or name in {"alt", "aria-label"}:
                continue
            found = re.findall(r"(?:https?:)?//[^\s\"')]+", value)
            assert set(found) <= (NAMESPACES if name == "xmlns" else set()), (tag, name, value)
            if name in {"href", "src"}:
                assert value.startswith(("#", "data:"))
            for target in re.findall(r"url\(([^)]*)\)", value):
                assert target.startswith("#")
    style = re.findall(r"<style[^>]*>(.*?)</style>", full_report(tmp_path).html(), re.DOTALL)
    assert not re.search(r"https?:|@import|url\(\s*['\"]?[^#\s'\"]", "".join(style))
    policy = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy[0]["content"])


def test_a_plain_report_holds_no_address_but_namespaces(tmp_path: Path) -> None:
    curve = Curve("a", [1.0, 10.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 2.0], "gold")
    gain_curves([curve], tmp_path / "gain", x_label="x", y_label="y", title="t")
    html = Report("Title").figure(tmp_path / "gain.svg", alt="a", caption="c").html()
    assert set(re.findall(r"https?://[^\"'\s<>)]+", html)) <= NAMESPACES


def test_two_figures_share_no_ids_and_keep_their_own_references(tmp_path: Path) -> None:
    page = Page(full_report(tmp_path).html())
    ids = Counter(str(a["id"]) for _, a in page.elements if "id" in a)
    assert max(ids.values()) == 1
    targets = {
        str(a["href"])[1:] for _, a in page.elements if str(a.get("href", "")).startswith("#")
    }
    for _, attributes in page.elements:
        for value in attributes.values():
            targets |= set(re.findall(r"url\(#([^)]*)\)", value or ""))
    assert any(t.startswith("figure1-") for t in targets)
    assert any(t.startswith("figure2-") for t in targets)
    assert targets <= set(ids)


def test_tables_align_numbers_and_format_cells() -> None:
    rows: list[dict[str, Any]] = [
        {"planner": "beam", "n": 4, "gold": Interval(-0.5, -0.71, -0.3), "mixed": 1},
        {"planner": "search", "n": 12345, "gold": None, "mixed": "many"},
    ]
    html = Report("t").table(rows, caption="Gain").html()
    page = Page(html)
    cells = [a.get("class") for a in page.all("td")]
    assert cells == [None, "number", "number", None] * 2
    assert [a.get("class") for a in page.all("th")] == [None, "number", "number", None]
    for shown in ("−0.50 [−0.71, −0.30]", "12,345", '<td class="number">–</td>', "many"):
        assert shown in html
    assert "Table 1." in html
    with pytest.raises(ValueError, match="no row has the column 'seed'; the rows have: gold"):
        Report("t").table(rows, ["seed"], caption="")
    assert "<th" in Report("t").table([], ["a"], caption="empty").html()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.123"),
        (1234.5678, "1,235"),
        (1e-5, "1e-05"),
        (True, "yes"),
        (None, "–"),
        (9999, "9999"),
        (1_000_000, "1,000,000"),
        (np.float32(0.5), "0.5"),
        (torch.tensor([1, 2]), "1, 2"),
        ({"a": 1.0}, "a: 1"),
        ("x-y", "x-y"),
        (float("nan"), "nan"),
    ],
)
def test_cells_read_as_a_person_would_write_them(value: object, shown: str) -> None:
    assert format_cell(value) == shown


def test_preformatted_text_keeps_its_lines_and_links_stay_inside_the_folder() -> None:
    report = (
        Report("t").preformatted("a\n  <b>", summary="One & two").link("figures/a b.html", "<i>")
    )
    html = report.html()
    assert "<pre>a\n  &lt;b&gt;</pre>" in html
    assert "<summary>One &amp; two</summary>" in html
    assert '<a href="./figures/a%20b.html">&lt;i&gt;</a>' in html
    for outside in ("", "/etc/passwd", "../a.html", "a/../../b"):
        with pytest.raises(ValueError, match="link: found"):
            Report("t").link(outside, "x")
    assert 'href="./javascript%3Ax"' in Report("t").link("javascript:x", "x").html()


def test_page_is_accessible_dark_aware_and_printable(tmp_path: Path) -> None:
    html = full_report(tmp_path).html()
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == len(page.all("svg")) == 2
    assert all("scope" in th for th in page.all("th"))
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    anchors = {str(a["href"])[1:] for a in page.all("a")}
    assert anchors == {str(h["id"]) for h in page.all("h2")}
    with pytest.raises(ValueError, match="no alt text"):
        Report("t").figure(tmp_path / "gain.svg", alt=" ", caption="c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<image href="https://evil.example/a.png"/>', "refers to 'https://evil"),
        ('<image href="other.png"/>', "refers to 'other.png'"),
        ('<rect style="fill: url(//evil.example/a)"/>', "refers to 'url"),
        ("<style>@import 'a.css';</style>", "refers to '@import'"),
    ],
)
def test_figures_that_need_other_files_are_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{content}</svg>')
    with pytest.raises(ValueError, match=message):
        Report("t").figure(path, alt="a", caption="c")


def test_figures_lose_scripts_and_handlers_and_must_be_svg(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9pt"><script>x()</script>'
        '<g onclick="x()"><foreignObject><p/></foreignObject><path id="p" d="M0 0"/></g></svg>'
    )
    page = Page(Report("t").figure(path, alt="a", caption="c").html())
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags
    assert "foreignobject" not in tags
    assert page.all("g") == [{}]
    assert page.all("path") == [{"id": "figure1-p", "d": "M0 0"}]
    assert "width" not in page.all("svg")[0]
    for wrong in ("not xml", "<html/>"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"required an SVG|not an SVG"):
            Report("t").figure(path, alt="a", caption="c")
    with pytest.raises(StorageError, match=r"missing\.svg"):
        Report("t").figure(tmp_path / "missing.png", alt="a", caption="c")


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "report.html"
    report = Report("first")
    assert report.write(path) == path
    assert path.read_text(encoding="utf-8") == report.html()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        Report("second").write(path)
    assert path.read_text(encoding="utf-8") == report.html()
    assert os.listdir(path.parent) == ["report.html"]
