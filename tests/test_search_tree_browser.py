"""A real browser opens, closes, finds and walks the tree page, and nothing hostile runs in it.

The browser is spoken to over two pipes in its debugging protocol, so the page is the one users get
and the keys are real.
"""

import time

import pytest
import torch

from search import MuZeroPlanner
from search.viewer.page import NamedView, render_html
from search.viewer.view import NodeView, arrange, view_tree
from tests.browser import CHROMIUM, Browser
from tests.search_reference import random_tables

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)> "
    "<!-- \x1b\x00\ud800 \u202e gnp.exe"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH"),
]


@pytest.fixture
def browser(tmp_path):
    made = Browser(tmp_path)
    yield made
    made.close()
    assert made.troubles == []


def searched(simulations=40):
    model = random_tables(3, num_tables=2, terminal=0.1)
    generator = torch.Generator().manual_seed(0)
    return MuZeroPlanner(simulations).plan(model, torch.arange(2), generator=generator).tree


@pytest.fixture
def views():
    tree = searched()
    labels = {i: f"segment {i}" for i in range(41)}
    return [view_tree(tree, row, labels=labels) for row in (0, 1)]


@pytest.fixture
def page(views, tmp_path):
    path = tmp_path / "tree.html"
    named = [NamedView(f"tree {i}", view) for i, view in enumerate(views)]
    path.write_text(render_html(named, title="Two trees"), encoding="utf-8")
    return path


def inner(view):
    return {node.parent for node in view.nodes} - {-1}


def test_branches_open_and_close_by_mouse(browser, page, views):
    view = views[0]
    browser.open(page)
    line = [i for i, node in enumerate(view.nodes) if node.principal]
    opened = set(line) & inner(view)
    shown = [i for i, node in enumerate(view.nodes) if node.parent in opened or i == 0]
    assert browser.rows() == shown, "the principal line is open at first"
    browser.click("#none")
    assert browser.rows() == [0]
    browser.click("#rows [data-node='0'] .twisty")
    assert browser.rows() == [i for i, node in enumerate(view.nodes) if node.depth <= 1]
    browser.click("#rows [data-node='1'] .said", clicks=2)
    assert {i for i in browser.rows() if view.nodes[i].parent == 1}
    browser.click("#all")
    assert browser.rows() == list(range(len(view.nodes)))
    assert browser.ask("document.querySelectorAll('[aria-expanded=false]').length") == 0
    browser.click("#rows [data-node='0'] .twisty")
    assert browser.rows() == [0]
    browser.click("#rows [data-node='0'] .twisty")
    assert browser.rows() == list(range(len(view.nodes))), "what was open below is open again"
    browser.click("#line")
    assert browser.rows() == shown


def test_rows_say_their_place_and_their_numbers(browser, page, views):
    browser.open(page)
    browser.click("#all")
    told = browser.ask(
        "[...document.querySelectorAll('#rows .row')].map(r => ['role', 'aria-level',"
        "'aria-posinset', 'aria-setsize', 'aria-expanded'].map(a => r.getAttribute(a)))"
    )
    nodes = views[0].nodes
    for i, node in enumerate(nodes):
        siblings = [j for j, other in enumerate(nodes) if other.parent == node.parent]
        expanded = "true" if i in inner(views[0]) else None
        place = [str(n) for n in (node.depth + 1, siblings.index(i) + 1, len(siblings))]
        assert told[i] == ["row", *place, expanded]
    cells = browser.ask(
        "[...document.querySelectorAll('#rows .row')].map(r => [...r.querySelectorAll("
        "'[role=gridcell]')].slice(1).map(c => c.textContent))"
    )
    for i, node in enumerate(nodes):
        numbers = [node.value, node.qvalue, node.prior, node.reward, node.discount, node.raw_value]
        assert int(cells[i][0]) == node.visits
        for text, number in zip(cells[i][1:], numbers, strict=True):
            if number is None:
                assert text == "–"
            else:
                assert float(text.replace("−", "-")) == pytest.approx(number, abs=5.1e-3)
    heads = browser.ask("document.querySelectorAll('.head [role=columnheader]').length")
    assert heads == 1 + len(cells[0])
    assert browser.ask("document.querySelector('#grid').getAttribute('role')") == "treegrid"


def test_keys_walk_the_tree(browser, page, views):
    nodes = views[0].nodes
    browser.open(page)
    browser.click("#none")
    browser.click("#rows [data-node='0'] .said")
    assert browser.focused() == 0
    browser.press("ArrowRight")
    assert (browser.focused(), browser.rows()[:2]) == (0, [0, 1])
    browser.press("ArrowRight")
    assert browser.focused() == 1
    browser.press("ArrowDown")
    second = [i for i, node in enumerate(nodes) if node.depth == 1][1]
    assert browser.focused() == second
    browser.press("ArrowUp")
    browser.press("Enter")
    assert 2 in browser.rows()
    browser.press("Enter")
    assert 2 not in browser.rows()
    browser.press("*", "*")
    assert {i for i in browser.rows() if nodes[i].depth == 2} == {
        i for i, node in enumerate(nodes) if node.depth == 2
    }
    browser.press("End")
    assert browser.focused() == browser.rows()[-1]
    browser.press("Home")
    assert browser.focused() == 0
    browser.press("PageDown")
    assert browser.focused() == browser.rows()[min(15, len(browser.rows()) - 1)]
    browser.press("Home")
    browser.press("ArrowRight")
    browser.press("ArrowLeft")
    assert (browser.focused(), 2 in browser.rows()) == (1, False)
    browser.press("ArrowLeft")
    assert browser.focused() == 0
    browser.press("ArrowLeft")
    assert browser.rows() == [0]
    assert browser.selected() == [browser.focused()]
    assert browser.ask("document.querySelectorAll('#rows [tabindex=\"0\"]').length") == 1


def test_closing_above_the_selected_node_selects_what_was_closed(browser, page):
    browser.open(page)
    browser.click("#rows [data-node='2'] .said")
    browser.click("#rows [data-node='1'] .twisty")
    assert browser.selected() == [1]
    browser.press("ArrowLeft")
    assert browser.selected() == [0]


def test_search_reveals_what_it_finds(browser, page, views):
    browser.open(page)
    browser.click("#none")
    browser.click("#rows [data-node='0'] .said")
    browser.press("/", "/")
    assert browser.ask("document.activeElement.id") == "find"
    browser.type("segment 3")
    browser.press("Enter")
    hits = [i for i, node in enumerate(views[0].nodes) if "segment 3" in node.text]
    assert len(hits) > 2
    found = "document.querySelector('#found').textContent"
    assert browser.ask(found) == f"1 of {len(hits)}"
    assert browser.selected() == [hits[0]]
    browser.press("Enter")
    assert browser.selected() == [hits[1]]
    assert browser.ask("document.activeElement.id") == "find"
    browser.press("Enter", modifiers=8)
    browser.press("Enter", modifiers=8)
    assert browser.selected() == [hits[-1]]
    path, at = [], hits[-1]
    while at >= 0:
        path.append(views[0].nodes[at].text)
        at = views[0].nodes[at].parent
    said = browser.ask("document.querySelector('#detail .path').textContent")
    assert said == "".join(reversed(path))
    browser.press("Escape")
    assert browser.focused() == hits[-1]
    assert browser.ask("document.querySelectorAll('.hit').length") == 0
    browser.press("/", "/")
    browser.type("action 4")
    browser.press("Enter")
    acted = [i for i, node in enumerate(views[0].nodes) if node.action == 4]
    assert browser.ask(found) == f"1 of {len(acted)}"
    browser.press("Escape")
    browser.press("/", "/")
    browser.type("no such text")
    browser.press("Enter")
    assert browser.ask(found) == "none"


def test_the_selector_shows_another_tree(browser, page, views):
    browser.open(page)
    browser.ask(
        "(() => { const s = document.querySelector('#row'); s.value = '1';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.click("#all")
    assert browser.rows() == list(range(len(views[1].nodes)))
    visits = browser.ask("[...document.querySelectorAll('#rows .bar')].map(c => +c.textContent)")
    assert visits == [node.visits for node in views[1].nodes]
    assert f"{len(views[1].nodes)} nodes" in browser.ask(
        "document.querySelector('#summary').textContent"
    )


def test_a_hostile_label_is_text(browser, tmp_path):
    view = view_tree(searched(), 0, labels=dict.fromkeys(range(41), HOSTILE))
    path = tmp_path / "hostile.html"
    page = render_html([NamedView(HOSTILE, view)] * 2, title=HOSTILE, subtitle=HOSTILE)
    path.write_text(page, encoding="utf-8")
    browser.open(path)
    browser.click("#all")
    browser.click("#rows [data-node='3'] .said")
    browser.press("/", "/")
    browser.type("<script>")
    browser.press("Enter")
    assert browser.ask("document.querySelectorAll('img, svg').length") == 0
    assert browser.ask("document.scripts.length") == 3
    said = browser.ask("document.querySelector('#rows [data-node=\"3\"] .said').textContent")
    assert said.startswith("</script><script>alert(1)</script><img src=x onerror=alert(2)>")
    numbers = browser.ask(
        "[...document.querySelectorAll('#rows [data-node=\"3\"] .number')].map(c =>"
        "Math.round(c.getBoundingClientRect().left))"
    )
    assert numbers == sorted(numbers), "the reading direction of a label stays inside it"


def test_the_check_sees_a_script_that_runs(browser, page):
    """An injected script is stopped by the policy, and the stop is seen; without it, it runs."""
    text = page.read_text(encoding="utf-8").replace("<main>", "<main><script>alert(1)</script>")
    page.write_text(text, encoding="utf-8")
    browser.open(page)
    browser.ask("1")
    assert len(browser.troubles) == 1
    assert "Content Security Policy" in browser.troubles.pop()
    assert browser.rows(), "the page's own script ran all the same"


def bush(width, depth_of_chain):
    """`width` children of the root, and a chain below the most visited one."""
    entries = [NodeView(0, -1, 0, None, "root", width + depth_of_chain, 0.5)]
    for i in range(width):
        visits = depth_of_chain if i == 0 else 1
        entries.append(NodeView(i + 1, 0, 0, i, f"child {i}", visits, 0.5))
    for i in range(1, depth_of_chain):
        parent = 1 if i == 1 else len(entries) - 1
        entries.append(NodeView(len(entries), parent, 0, 0, f"deep {i}", depth_of_chain - i, 0.5))
    return arrange(entries)


def test_twenty_thousand_nodes_stay_usable(browser, tmp_path):
    view = bush(12_000, 9_000)
    path = tmp_path / "large.html"
    path.write_text(render_html([NamedView("large", view)], title="large"), encoding="utf-8")
    began = time.perf_counter()
    browser.open(path)
    browser.click("#none")
    browser.click("#rows [data-node='0'] .twisty")
    assert len(browser.rows()) == 201, "children come by the hundred"
    browser.click("#rows .rest")
    assert len(browser.rows()) == 401
    browser.click("#all")
    assert 4000 < len(browser.rows()) <= 5000
    assert "others open by hand" in browser.ask("document.querySelector('#summary').textContent")
    browser.click("#none")
    browser.press("/", "/")
    browser.type("child 11999")
    browser.press("Enter")
    (found,) = browser.selected()
    assert view.nodes[found].text == "child 11999"
    assert time.perf_counter() - began < 60
