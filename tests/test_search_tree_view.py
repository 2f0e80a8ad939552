"""A search tree as text, JSON and a page: complete, legible, and safe with hostile labels."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner
from search.viewer.json_export import nested_json, view_nested
from search.viewer.page import NamedView, render_html
from search.viewer.text import format_column, one_line, render_text, summary_line
from search.viewer.view import NodeView, arrange, children_of, limit_view, view_tree
from tests.search_reference import random_tables

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror=alert(2)> "quoted" \\" \\N &#x202e; '
    "<!-- \x1b[31mred\x07\x00\x9b2J \ud800 \u202eturned\u2066 \u2028 line\nbreak ]]> '; } -> n0"
)
KINDS = [MuZeroPlanner, GumbelMuZeroPlanner, BestOfNPlanner, BeamPlanner]
LIMITS = st.none() | st.integers(1, 12)
CHECKS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def searched(planner=MuZeroPlanner, *, simulations=30, seed=0):
    model = random_tables(seed, num_tables=2, dead=0.2, terminal=0.2, invalid=0.3)
    generator = torch.Generator().manual_seed(seed)
    return planner(simulations).plan(model, torch.arange(2), generator=generator).tree


def small_tree():
    """Three simulations on two actions: 0 (Q 1 + .5 * 2 = 2), 1 (Q 0), then 0 0 (Q 3 + .5)."""
    model = random_tables(1, num_tables=1, num_states=4, num_actions=2)
    model.prior_logits.zero_()
    model.next_state[0] = torch.tensor([[1, 2], [3, 3], [2, 2], [3, 3]])
    model.reward[0] = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    model.discount.fill_(0.5)
    model.value[0] = torch.tensor([0.0, 2.0, 0.0, 1.0])
    return GumbelMuZeroPlanner(3, gumbel_scale=0).plan(model, torch.arange(1)).tree


def chain(length, text="x"):
    entries = [
        NodeView(node=i, parent=i - 1, depth=0, action=0 if i else None, text=text,
                 visits=length - i, value=0.5, prior=1.0 if i else None)
        for i in range(length)
    ]  # fmt: skip
    return arrange(entries)


def flat(root):
    """Every node of a nested tree by its column, without its children."""
    found, stack = {}, [root]
    while stack:
        node = stack.pop()
        stack += node["children"]
        found[node["node"]] = {**node, "children": [c["node"] for c in node["children"]]}
    return found


# -------------------------------------------------------------------------------------- the list


@CHECKS
@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(0, 500), st.integers(0, 1))
def test_the_list_says_what_the_tree_says(planner, simulations, seed, row):
    tree = searched(planner, simulations=simulations, seed=seed)
    view = view_tree(tree, row, labels={0: "root", 1: "one"})
    expected = flat(tree.to_dict(row))
    assert sorted(node.node for node in view.nodes) == sorted(expected)
    assert view.principal_variation == tree.principal_variation(row)
    below = children_of(view)
    for at, node in enumerate(view.nodes):
        told = expected[node.node]
        found = (node.action, node.visits, node.value, node.reward, node.discount)
        assert found == tuple(told[k] for k in ("action", "visits", "value", "reward", "discount"))
        assert node.prior == (None if at == 0 else pytest.approx(told["prior"]))
        assert node.text == {0: "root", 1: "one"}.get(node.node)
        assert node.raw_value == tree.raw_values[row, node.node].item()
        assert node.terminal == tree.terminal[row, node.node].item()
        assert sorted(view.nodes[c].node for c in below[at]) == sorted(told["children"])
        visits = [view.nodes[c].visits for c in below[at]]
        assert visits == sorted(visits, reverse=True)
        if at:
            parent = view.nodes[node.parent]
            assert (node.parent < at, node.depth) == (True, parent.depth + 1)
            qvalues = tree.qvalues(torch.tensor([parent.node] * 2))
            assert node.qvalue == qvalues[row, node.action].item()


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there_is_named(row):
    with pytest.raises(ValueError, match=rf"row: found {row}; required 0 to 1"):
        view_tree(searched(), row)


@CHECKS
@given(st.integers(0, 300), LIMITS, LIMITS)
def test_limits_keep_the_principal_line_and_count_what_they_leave_out(seed, nodes, depth):
    view = view_tree(searched(seed=seed), 0)
    kept = limit_view(view, max_nodes=nodes, max_depth=depth)
    assert len(kept.nodes) + kept.hidden == len(view.nodes)
    assert len(kept.nodes) <= (nodes or len(view.nodes))
    assert kept.depth <= (depth or view.depth)
    line = [node.action for node in view.nodes if node.principal][1:]
    assert kept.principal_variation == line[: min(nodes - 1 if nodes else 99, depth or 99)]
    for at, node in enumerate(kept.nodes):
        assert node.parent < at
        assert at == 0 or kept.nodes[node.parent].depth == node.depth - 1
    assert limit_view(kept, max_nodes=nodes, max_depth=depth) == kept
    again = limit_view(kept, max_nodes=2)
    assert len(again.nodes) + again.hidden == len(view.nodes)


def test_beyond_the_principal_line_the_most_visited_nodes_are_kept():
    visits = {"root": 20, "a": 9, "b": 6, "c": 4, "a1": 2, "b1": 5, "b2": 1, "c1": 3}
    places = list(visits)
    above = [-1 if name == "root" else places.index(name[:-1] or "root") for name in places]
    nodes = [NodeView(i, above[i], 0, i, name, visits[name], 0.0) for i, name in enumerate(places)]
    kept = limit_view(arrange(nodes), max_nodes=6)
    assert [node.text for node in kept.nodes] == ["root", "a", "a1", "b", "b1", "c"]
    assert [node.hidden for node in kept.nodes] == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("name", ["max_nodes", "max_depth"])
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: found 0; required at least 1"):
        limit_view(chain(3), **{name: 0})


def test_a_chain_of_many_nodes_is_shown_without_recursion():
    view = chain(20_000)
    assert view.depth == 19_999
    assert limit_view(view, max_nodes=10).hidden == 19_990
    assert nested_json(view).count('"node"') == 20_000
    assert "… 19940 more not shown" in render_text(view, max_nodes=60)
    assert len(render_html([NamedView("chain", view)], title="t")) < 2_000_000


# ------------------------------------------------------------------------------------------ JSON


@CHECKS
@given(st.sampled_from(KINDS), st.integers(0, 300), st.dictionaries(st.integers(0, 9), st.text()))
def test_json_is_the_trees_own_with_labels_and_reads_back(planner, seed, labels):
    tree = searched(planner, simulations=9, seed=seed)
    view = view_tree(tree, 1, labels=labels)
    found, expected = flat(json.loads(nested_json(view))), flat(tree.to_dict(1))
    assert found.keys() == expected.keys()
    for column, node in found.items():
        assert node.pop("text") == labels.get(column)
        assert node.pop("raw_value") == tree.raw_values[1, column].item()
        assert node.pop("terminal") == tree.terminal[1, column].item()
        assert sorted(node.pop("children")) == sorted(expected[column].pop("children"))
        assert node == {
            k: pytest.approx(v) if k == "prior" else v for k, v in expected[column].items()
        }
    assert view_nested(json.loads(nested_json(view))) == view
    limited = limit_view(view, max_nodes=3)
    assert view_nested(json.loads(nested_json(limited))).hidden == limited.hidden


def test_numbers_that_json_cannot_hold_are_null():
    entry = NodeView(0, -1, 0, None, HOSTILE, 1, value=float("nan"), raw_value=float("inf"))
    root = json.loads(nested_json(arrange([entry])))
    assert (root["value"], root["raw_value"], root["text"]) == (None, None, HOSTILE)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"visits": -1}, r"tree.children\[1\].visits: found '-1' \(int\)"),
        ({"visits": 1.5}, "visits: found '1.5'"),
        ({"visits": True}, "visits: found 'True'"),
        ({"visits": None}, "visits: found 'None'"),
        ({"value": "high"}, r"value: found 'high' \(str\); required a number or null"),
        ({"text": 3}, "text: found '3'"),
        ({"children": {}}, ""),
        ({"children": {"a": 1}}, "children: found"),
        (
            {"children": [7]},
            r"tree.children\[1\].children\[0\]: found '7' \(int\); required a node",
        ),
        ({"action": "left"}, "action: found 'left'"),
    ],
)
def test_a_wrong_field_of_a_nested_tree_is_named(change, found):
    leaf = {"text": "x", "visits": 1, "value": 0.0}
    root = {**leaf, "visits": 3, "children": [leaf, {**leaf, **change}]}
    if not found:
        assert len(view_nested(root).nodes) == 3
        return
    with pytest.raises(ValueError, match=found):
        view_nested(root)


# ------------------------------------------------------------------------------------------ text


def test_text_of_a_known_search():
    view = view_tree(small_tree(), 0, labels={0: "Say it", 1: "yes", 3: "and more"})
    assert render_text(view) == (
        "visits  value      Q  prior  reward    * principal line\n"
        "     4  1.188      –      –       –  * Say it\n"
        "     2  2.750  2.375  0.500   1.000  * ├─ 0: yes\n"
        "     1  1.000  3.500  0.500   3.000  * │  └─ 0: and more\n"
        "     1  0.000  0.000  0.500   0.000    └─ 1\n"
    )
    assert render_text(view, max_nodes=2) == (
        "visits  value      Q  prior  reward    * principal line\n"
        "     4  1.188      –      –       –  * Say it\n"
        "     2  2.750  2.375  0.500   1.000  * ├─ 0: yes\n"
        "                                       │  └─ … 1 more not shown\n"
        "                                       └─ … 1 more not shown\n"
    )
    assert summary_line(view) == "4 nodes, depth 2, 4 visits, value 1.188, principal line 0 → 0"


def test_hostile_labels_reach_no_terminal():
    labels = dict.fromkeys(range(31), HOSTILE)
    view = view_tree(searched(), 0, labels=labels)
    text = render_text(view, width=400)
    assert text.count("\n") == len(view.nodes) + 1
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u202a-\u202e\u2066-\u2069]", text
    )
    assert "red" in text
    text.encode("utf-8")
    assert max(map(len, render_text(view, width=80).splitlines())) <= 80


def test_a_line_is_cut_where_it_must_be():
    assert one_line("a \n\n b\tc", 20) == "a ↵↵ b c"
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde…"
    assert one_line("a" * 10**6, 6) == "aaaaa…"
    assert one_line(" " * 10**3 + "a", 6) == "…"


def test_numbers_of_a_column_have_their_points_below_each_other():
    assert format_column([1.0, -0.25, None]) == ["1.000", "-0.250", "–"]
    assert format_column([1234.5, 0.25]) == ["1234", "0"]
    assert format_column([12.345, float("nan")]) == ["12.35", "nan"]
    assert format_column([1e-5, 2e-4]) == ["1e-05", "0.0002"]
    assert format_column([]) == []


# ------------------------------------------------------------------------------------------ page


class Page(HTMLParser):
    """Tags with their attributes, and what scripts and styles hold."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.inside, self.content = [], None, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.content.append("")
            self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.content[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page():
    tree = searched()
    views = [view_tree(tree, row, labels=dict.fromkeys(range(31), HOSTILE)) for row in (0, 1)]
    named = [NamedView(f"{row}: {HOSTILE}", view) for row, view in enumerate(views)]
    return render_html(named, title=HOSTILE, subtitle=HOSTILE), views


def test_hostile_labels_are_data_in_the_page(page):
    text, views = page
    text.encode("utf-8")
    found = Page(text)
    assert [script.get("type") for script in found.all("script")] == ["application/json"] * 2 + [
        None
    ]
    assert not found.all("img")
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    _, first, second, script = found.content
    for data, view in zip((first, second), views, strict=True):
        assert "<" not in data
        columns = json.loads(data)
        assert columns["visits"] == [node.visits for node in view.nodes]
        assert columns["parent"] == [node.parent for node in view.nodes]
        assert columns["value"] == pytest.approx([node.value for node in view.nodes], rel=1e-5)
        assert columns["principal"] == [i for i, node in enumerate(view.nodes) if node.principal]
        assert set(columns["text"]) == {
            HOSTILE.translate(dict.fromkeys((0, 7, 27, 0xD800), 0xFFFD))
        }
    assert "</script" not in script


def test_the_page_lets_only_its_own_script_and_style_run(page):
    text, _ = page
    found = Page(text)
    (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    style, *_, script = found.content
    for directive, content in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [a for _, a in found.tags if "src" in a]
    assert [a["href"] for _, a in found.tags if "href" in a] == ["data:,"]
    assert not re.search(r"https?://|url\(|@import|innerHTML|insertAdjacentHTML|eval\(", text)


def test_the_page_offers_a_selector_only_for_several_trees(page):
    text, views = page
    assert len(Page(text).all("option")) == 2
    assert "<label>Tree <select" in text
    assert "<label hidden>Tree <select" in render_html([NamedView("0", views[0])], title="one")


def test_columns_of_which_nothing_is_known_are_left_out():
    view = view_nested({"text": "a", "visits": 2, "value": None, "children": []})
    columns = json.loads(Page(render_html([NamedView("0", view)], title="t")).content[1])
    assert "raw" not in columns
    assert "value" not in columns
    nan = arrange([NodeView(0, -1, 0, None, None, 1, value=float("nan"))])
    columns = json.loads(Page(render_html([NamedView("0", nan)], title="t")).content[1])
    assert columns["value"] == ["nan"]
