"""`prefsearch tree show` as a user types it."""

import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
import torch

from prefsearch.cli import entry
from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner
from search.viewer.file import load_tree, save_tree
from tests.search_reference import random_tables

ROOT = Path(__file__).resolve().parent.parent
NODE = {"text": "Say thanks", "visits": 3, "value": 0.4}
TREE = {**NODE, "children": [{**NODE, "visits": 2, "prior": 0.5, "reward": 1.0}]}


@pytest.fixture
def saved(tmp_path):
    model = random_tables(0, num_tables=3)
    tree = MuZeroPlanner(20, dirichlet_fraction=0).plan(model, torch.arange(3)).tree
    labels = [{0: f"prompt {row}", 1: "first"} for row in range(3)]
    return save_tree(tree, tmp_path / "tree.safetensors", labels=labels, title="Three trees")


def show(*words):
    return entry.main(["tree", "show", *map(str, words)])


def test_a_page_of_all_trees_is_written_beside_the_file(saved, capsys):
    assert show(saved) == 0
    page = saved.with_name("tree.safetensors.html")
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "tree.safetensors: 3 trees, up to 20 simulations, 5 actions"
    line = load_tree(saved).tree.principal_variation(1)
    assert told[2].startswith("  tree 1: 21 nodes, depth ")
    assert told[2].endswith("principal line " + " → ".join(map(str, line)))
    assert told[-1] == f"Page: {page}"
    text = page.read_text(encoding="utf-8")
    assert "<h1><bdi>Three trees</bdi></h1>" in text
    assert text.count("<option") == 3
    assert sorted(p.name for p in saved.parent.iterdir()) == [saved.name, page.name]


def test_a_page_of_one_tree_and_fewer_nodes(saved, tmp_path, capsys):
    out = tmp_path / "one.html"
    assert show(saved, "--row", 2, "--max-nodes", 5, "--output", out) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("<option") == 1
    assert '"hidden":{' in text
    assert "prompt 2" in text
    assert "prompt 0" not in text
    assert "tree 2: 21 nodes" in capsys.readouterr().out


def test_text_and_json_go_to_the_terminal_or_a_file(saved, tmp_path, capsys):
    shown = {}
    for kind, opening in (("text", "tree.safetensors: Three"), ("json", "{")):
        assert show(saved, "--row", 1, "--format", kind) == 0
        shown[kind] = capsys.readouterr().out
        assert shown[kind].startswith(opening)
        assert "prompt 1" in shown[kind]
        out = tmp_path / f"out.{kind}"
        assert show(saved, "--row", 1, "--format", kind, "--output", out) == 0
        assert capsys.readouterr().out == f"{out}\n"
        assert out.read_text(encoding="utf-8") == shown[kind]
    assert not saved.with_name("tree.safetensors.html").exists()
    root = json.loads(shown["json"])
    assert (root["visits"], root["text"]) == (21, "prompt 1")
    assert show(tmp_path / "out.json", "--format", "text") == 0
    again = capsys.readouterr().out
    assert again.splitlines()[3:] == shown["text"].splitlines()[3:]


def test_limits_are_kept_and_said(saved, capsys):
    assert show(saved, "--format", "text", "--max-depth", 2, "--max-nodes", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("─ " in line and "…" not in line for line in lines) == 3
    assert any("more not shown" in line for line in lines)
    assert show(saved, "--format", "json", "--max-depth", 1) == 0
    root = json.loads(capsys.readouterr().out)
    assert root["children"]
    assert not any(child["children"] for child in root["children"])


@pytest.mark.parametrize("planner", [BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner])
def test_trees_of_every_planner_are_shown(planner, tmp_path, capsys):
    tree = planner(12).plan(random_tables(1, num_tables=1), torch.arange(1)).tree
    path = save_tree(tree, tmp_path / "t.safetensors", embeddings=False)
    for kind in ("html", "text", "json"):
        assert show(path, "--format", kind) == 0
    assert "principal line" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(TREE),
        json.dumps({"responses": ["x"], "tree": TREE}, indent=2),
        "\ufeff" + json.dumps([{"tree": None}, TREE]),
        json.dumps({"prompt": "p", "tree": TREE}) + "\n\n" + json.dumps({"tree": None}) + "\n",
    ],
    ids=["node", "demo", "list", "lines"],
)
def test_json_of_the_text_searches_is_opened(content, tmp_path, capsys):
    path = tmp_path / "tree.json"
    path.write_text(content, encoding="utf-8")
    assert show(path, "--format", "text") == 0
    out = capsys.readouterr().out
    assert "2 nodes, depth 1, 3 visits, value 0.400, principal line 0" in out
    assert "└─ 0: Say thanks" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["FILE", "--row", "3"], "--row: found 3; required 0 to 2, as"),
        (["FILE", "--row", "-1"], "--row: found -1"),
        (["FILE", "--row", "x"], "--row: found 'x'; required: int"),
        (["FILE", "--format", "png"], "--format: found 'png'; required: one of 'html'"),
        (["FILE", "--max-nodes", "0"], "max_nodes: found 0; required at least 1"),
        (["FILE", "--max-depth", "0"], "max_depth: found 0"),
        (
            ["FILE", "--format", "text", "--open"],
            "open: found True; required: false with",
        ),
        (["FILE", "--output", "FILE"], "is read as the file to show"),
        (["FILE", "--output", "FILE/x.html"], "which is no folder, above it"),
        (["FILE", "--output", "new/../tree.safetensors"], "is read as the file to show"),
        (["FILE", "--row", "1_0"], "--row: found '1_0'; required: int"),
        (["FILE", "--max-depth", "٣"], "--max-depth: found '٣'; required: int"),
        (["FILE", "--rows", "1"], "unrecognized arguments: --rows"),
        ([], "file: found ''; required: a file of search trees"),
        (["none.safetensors"], "could not read it: No such file"),
        (["."], "found a folder; required is a regular file"),
        (["empty.bin"], "empty.bin: found no readable safetensors"),
        (["half.bin"], "half.bin: found no readable safetensors"),
        (["text.txt"], "text.txt: found no readable safetensors"),
        (["bad.json"], "bad.json: found neither JSON nor JSON lines (Expecting"),
        (["bad.jsonl"], "bad.jsonl: found neither JSON nor JSON lines (line 2: "),
        (["other.json"], "other.json: found JSON without a search tree"),
        (["wrong.json"], "wrong.json: tree.visits: found '-1' (int); required"),
        (["wrong.jsonl"], "wrong.jsonl, line 2: tree.visits: found 'None'"),
        (["latin.json"], "latin.json: found bytes that are not UTF-8"),
        (["deep.json"], "deep.json: found JSON nested too deep"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(words, message, saved, monkeypatch, capsys):
    monkeypatch.chdir(saved.parent)
    files = {
        "empty.bin": b"",
        "half.bin": saved.read_bytes()[:3000],
        "text.txt": b"hello",
        "bad.json": b'{"visits": ',
        "bad.jsonl": b'{"tree": null}\n{"tree": \n',
        "other.json": b'{"responses": []}',
        "wrong.json": b'{"visits": -1}',
        "wrong.jsonl": b'{"tree": {"visits": 1}}\n{"tree": {"value": 1}}\n',
        "latin.json": b'{"text": "\xe9"}',
        "deep.json": b"[" * 200_000,
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    before = saved.read_bytes()
    assert show(*(word.replace("FILE", str(saved)) for word in words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob("*.html"))


@pytest.mark.parametrize("words", [["tree"], ["tree", "--help"]])
def test_help_lists_the_subcommand(words, capsys):
    assert entry.main(words) == 0
    assert "  show " in capsys.readouterr().out


def test_an_unknown_subcommand_is_named(capsys):
    assert entry.main(["tree", "sing"]) == 2
    assert capsys.readouterr().err.startswith("error: prefsearch tree: unknown subcommand 'sing'")


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        show("--help")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for word in ("--row", "--format", "--output", "--open", "--max_depth", "--max_nodes"):
        assert f"  {word}" in out
    assert "prefsearch tree show runs/demo/data/search-gumbel_muzero-8.json --format text" in out
    assert "save_tree(" in out


def test_the_page_is_opened_in_a_browser_on_request(saved, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert show(saved, "--open") == 0
    assert opened == [saved.with_name("tree.safetensors.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert show(saved, "--open") == 2
    assert "--open: found no browser" in capsys.readouterr().err


def test_a_reader_that_stops_early_and_a_terminal_without_unicode_are_no_errors(saved):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "prefsearch", "tree", "show", str(saved), "--format", "text"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b"prompt 0" in done.stdout
    assert done.stderr == b""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_trees_are_shown_without_language_models(saved):
    code = (
        "import sys; from prefsearch.cli import entry;"
        f"entry.main(['tree', 'show', {str(saved)!r}]);"
        "sys.exit(any(name in sys.modules for name in ('transformers', 'trl', 'policies')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    )
