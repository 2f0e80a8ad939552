"""Searches over text leave trees that can be opened, with the text of every node."""

import json
from pathlib import Path

import pytest

from policies.cli import search
from policies.cli.loading import SearchModels
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import PartialReward
from policies.planning.searcher import SearchPolicy
from prefsearch.cli import entry
from search import BeamPlanner, BestOfNPlanner, GumbelMuZeroPlanner, MuZeroPlanner, Planner
from search.viewer.file import load_tree
from tests.fakes import CountingReward

PROMPTS = ["Write a short story about the baker.\n", "How do I make a pie?\n", "Tell a tale.\n"]


def texts_of(node: dict) -> list:
    return [node["text"], sorted((c["visits"], *texts_of(c)) for c in node["children"])]


@pytest.mark.parametrize(
    ("planner", "replan", "unit"),
    [
        (GumbelMuZeroPlanner(6, gumbel_scale=0.0), True, "block"),
        (MuZeroPlanner(6, dirichlet_fraction=0.0), True, "block"),
        (BeamPlanner(100, beam_width=2), False, "block"),
        (BestOfNPlanner(3), True, "response"),
    ],
    ids=["gumbel_muzero", "muzero", "beam", "best_of_n"],
)
def test_every_decision_leaves_its_trees_and_the_answer_is_the_same(
    planner: Planner,
    replan: bool,
    unit: str,
    policy: Policy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proposal = Proposal(unit=unit, segment_tokens=4, max_new_tokens=12)  # type: ignore[arg-type]
    reward = CountingReward()
    searcher = SearchPolicy(
        policy, reward, PartialReward(), planner, proposal, 3, replan=replan, batch_size=2
    )
    folder = tmp_path / "trees"
    found = searcher.generate(PROMPTS, seed=1, keep_trees=2, save_trees=folder)
    plain = searcher.generate(PROMPTS, seed=1)
    assert [r.response for r in found] == [r.response for r in plain]
    names = {path.name for path in folder.iterdir()}
    assert {f"prompt-{first}-decision-0.safetensors" for first in (0, 2)} <= names
    decisions = [name for name in names if name.startswith("prompt-0-")]
    assert len(decisions) > 1 or not replan or unit == "response"

    first = load_tree(folder / "prompt-0-decision-0.safetensors")
    assert first.title == "Prompts 0 to 1, decision 0"
    assert dict(first.tree.embeddings) == {}
    assert [labels[0] for labels in first.labels] == PROMPTS[:2]
    for row in (0, 1):
        # The nested tree that `keep_trees` keeps says the same of every node.
        labels, nested = first.labels[row], first.tree.to_dict(row)
        stack = [nested]
        while stack:
            node = stack.pop()
            node["text"] = labels[node["node"]]
            stack += node["children"]
        kept = found[row].tree
        assert kept is not None
        nested["text"] = nested["text"].strip()
        assert texts_of(nested) == texts_of(kept)
    last = folder / f"prompt-2-decision-{len([n for n in names if n.startswith('prompt-2-')]) - 1}"
    (labels,) = load_tree(last.with_suffix(".safetensors")).labels or []
    assert labels[0].startswith(PROMPTS[2])
    assert len(labels[0]) > len(PROMPTS[2]) or len(names) <= 2 or not replan

    path = folder / "prompt-0-decision-0.safetensors"
    assert entry.main(["tree", "show", str(path), "--format", "text", "--row", "1"]) == 0
    assert "* How do I make a pie?" in capsys.readouterr().out


def test_plan_saves_trees_to_a_new_folder_alone(
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        search, "search_models", lambda _: SearchModels(policy, CountingReward(), PartialReward())
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(PROMPTS))
    trees = tmp_path / "trees"
    argv = ["policy", "plan", "--policy", "x", "--reward_model", "x", "--dataset", str(prompts)]
    argv += ["--budget", "3", "--max_new_tokens", "8", "--unit", "response"]
    argv += ["--out", str(tmp_path / "planned.jsonl")]
    assert entry.main([*argv, "--save_trees", str(trees)]) == 0
    assert [path.name for path in trees.iterdir()] == ["prompt-0-decision-0.safetensors"]
    rows = [json.loads(line) for line in (tmp_path / "planned.jsonl").read_text().splitlines()]
    saved = load_tree(trees / "prompt-0-decision-0.safetensors")
    assert saved.labels is not None
    for row, labels in zip(rows, saved.labels, strict=True):
        assert labels[0] == row["prompt"]
        assert row["response"] in labels.values()
        assert row["tree"] is None
    capsys.readouterr()
    assert entry.main([*argv, "--save_trees", str(trees)]) == 2
    assert "save_trees: found" in capsys.readouterr().err
    assert entry.main(argv) == 0, "without the option nothing is asked of the folder"
