"""Diverse verifier tree search against lists, its budget, and the independence of its subtrees."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import BeamPlanner, build_planner
from tests.search_reference import TableModel, random_tables

WORLD = {"num_actions": 6, "invalid": 0.3, "terminal": 0.2, "dead": 0.1}
CHECKS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def dvts(budget: int, **settings) -> BeamPlanner:
    return build_planner("dvts", budget, **settings)


def paths_by_plain_dvts(
    model: TableModel, table: int, *, budget: int, subtrees: int, width: int, depth: int | None
) -> dict[tuple[int, ...], float]:
    """What a list-based search evaluates: the score of each action path, row by row, in order."""

    def valid_actions(state: int) -> list[int]:
        return model.valid_actions[table, state].nonzero().flatten().tolist()

    first = valid_actions(0)
    blocks = [first[m * width : (m + 1) * width] for m in range(subtrees)]
    lines = [((), 0, 0.0, 1.0, block) for block in blocks if block]
    scores: dict[tuple[int, ...], float] = {}
    level = 0
    while lines and (depth is None or level < depth):
        kept = []
        for path, state, gained, discount, block in lines:
            left = budget - len(scores)
            likely = sorted(block, key=lambda a: -float(model.prior_logits[table, state, a]))
            best = None
            for action in sorted(likely[:left]):
                child = int(model.next_state[table, state, action])
                total = gained + discount * float(model.reward[table, state, action])
                rest = discount * float(model.discount[table, state, action])
                score = total + rest * float(model.value[table, child])
                scores[(*path, action)] = score
                if best is None or score > best[0]:
                    best = (score, ((*path, action), child, total, rest))
            following = valid_actions(best[1][1])[:width] if best else []
            if following and best[1][3] != 0:
                kept.append((*best[1], following))
        lines, level = kept, level + 1
    return scores


def paths_in_tree(node, path=()) -> set:
    below = [paths_in_tree(child, (*path, child["action"])) for child in node["children"]]
    return set().union({path} if path else set(), *below)


@CHECKS
@given(
    seed=st.integers(0, 10_000),
    num_actions=st.integers(1, 7),
    invalid=st.sampled_from([0.0, 0.5]),
    ends=st.sampled_from([0.0, 0.3]),
    discount=st.sampled_from([0.3, 1.0, 1.5]),
    budget=st.integers(1, 50),
    subtrees=st.integers(1, 4),
    width=st.integers(1, 4),
    depth=st.sampled_from([None, 1, 3]),
)
def test_equals_the_search_over_lists(
    seed, num_actions, invalid, ends, discount, budget, subtrees, width, depth
):
    model = random_tables(
        seed,
        num_tables=3,
        num_actions=num_actions,
        invalid=invalid,
        terminal=ends,
        dead=ends,
        discount=discount,
    )
    planner = dvts(budget, num_groups=subtrees, num_children=width, max_depth=depth)
    output = planner.plan(model, torch.arange(3))
    spent = []
    for table in range(3):
        scores = paths_by_plain_dvts(
            model, table, budget=budget, subtrees=subtrees, width=width, depth=depth
        )
        spent.append(len(scores))
        assert paths_in_tree(output.tree.to_dict(table)) == scores.keys()
        expanded = {path[:-1] for path in scores}
        best, path = max((scores[path], path) for path in scores.keys() - expanded)
        assert float(output.value[table]) == pytest.approx(best, rel=1e-12, abs=1e-12)
        assert int(output.action[table]) == path[0]
        assert int(output.tree.node_visits[table, 0]) == 1 + len(scores)
    assert sum(model.step_rows) == sum(spent)
    assert output.tree.num_nodes == 1 + max(spent)


@pytest.mark.parametrize("budget", [1, 4, 9, 60])
def test_one_subtree_as_wide_as_the_actions_is_greedy_beam_search(budget):
    model, tables = random_tables(1, num_tables=8, **WORLD), torch.arange(8)
    found = dvts(budget, num_groups=1, num_children=6).plan(model, tables)
    expected = BeamPlanner(budget, beam_width=1).plan(model, tables)
    assert torch.equal(found.action, expected.action)
    assert torch.equal(found.value, expected.value)
    for name, tensor in vars(expected.tree).items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(getattr(found.tree, name), tensor), name


def test_subtrees_are_independent():
    model, tables = random_tables(2, num_tables=8, **WORLD), torch.arange(8)
    together = dvts(90, num_groups=3, num_children=2, max_depth=5)
    alone = replace(together, num_groups=1)
    tree = together.plan(model, tables).tree
    found = [paths_in_tree(tree.to_dict(row)) for row in range(8)]
    order = model.valid_actions[:, 0].cumsum(dim=-1) - 1
    union = [set() for _ in range(8)]
    for subtree in range(3):
        own = model.valid_actions & True
        own[:, 0] &= order // 2 == subtree
        rows = own[:, 0].any(dim=-1).nonzero().flatten()
        tree = alone.plan(replace(model, valid_actions=own), rows).tree
        for row, table in enumerate(rows.tolist()):
            union[table] |= paths_in_tree(tree.to_dict(row))
    assert union == found


def test_subtrees_keep_what_beam_search_crowds_out():
    model = random_tables(3, num_tables=1, num_actions=4, discount=1.0)
    for table in (model.reward, model.value):
        table.zero_()
    model.next_state[0, 0] = torch.tensor([1, 2, 3, 4])
    model.next_state[0, 1:] = 5
    model.value[0, 1:5] = torch.tensor([3.0, 0.0, 1.0, 0.0])
    model.value[0, 5] = 2.0
    model.reward[0, 3, 1] = 9.0  # what only those find who look below move 2
    tables = torch.arange(1)
    beam = BeamPlanner(40, beam_width=1, max_depth=2).plan(model, tables)
    planner = dvts(40, num_groups=2, num_children=2, max_depth=2)
    diverse = planner.plan(model, tables)
    assert (int(beam.action), float(beam.value)) == (0, 2.0)
    assert (int(diverse.action), float(diverse.value)) == (2, 11.0)


def test_valid_root_actions_are_dealt_out_in_order():
    """Blocks of two skip invalid actions; rows with fewer have fewer subtrees; the rest is left."""
    model = random_tables(4, num_tables=3, num_actions=6)
    model.valid_actions[:, 0] = torch.tensor(
        [[0, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool
    )
    planner = dvts(50, num_groups=2, num_children=2, max_depth=2)
    tree = planner.plan(model, torch.arange(3)).tree
    tried = [[c["action"] for c in tree.to_dict(row)["children"]] for row in range(3)]
    assert tried == [[1, 3, 4, 5], [2, 3, 5], [0]]
    for row, blocks in enumerate([[(1, 3), (4, 5)], [(2, 3), (5,)], [(0,)]]):
        children = {c["action"]: c for c in tree.to_dict(row)["children"]}
        for block in blocks:  # one of each block is expanded, by its first two actions
            scores = [
                float(tree.qvalues(tree.roots)[row, action])
                if not children[action]["children"]
                else children[action]["reward"]
                + children[action]["discount"]
                * float(tree.raw_values[row, children[action]["node"]])
                for action in block
            ]
            expanded = [action for action in block if children[action]["children"]]
            assert expanded == [block[scores.index(max(scores))]]
            below = children[expanded[0]]["children"]
            assert [child["action"] for child in below] == [0, 1]
    assert model.step_rows == [8, 10]  # 4 + 3 + 1 and twice 2 + 2 + 1 subtrees


@pytest.mark.parametrize("budget", [1, 3, 4, 5, 6, 7, 8, 9, 100])
def test_partly_affordable_level_expands_subtrees_in_order(budget):
    """First levels cost 4, then 4 each; of the last subtree reached, the likeliest action."""
    model = random_tables(5, num_tables=4, num_actions=4)
    planner = dvts(budget, num_groups=2, num_children=2, max_depth=2)
    tree = planner.plan(model, torch.arange(4)).tree
    assert sum(model.step_rows) == 4 * min(budget, 8)
    assert tree.num_nodes == 1 + min(budget, 8)
    for row in range(4):
        children = {c["action"]: c for c in tree.to_dict(row)["children"]}
        likelier = int(model.prior_logits[row, 0, :2].argmax())
        expected = {1: [likelier], 3: [0, 1, 2 + int(model.prior_logits[row, 0, 2:4].argmax())]}
        assert sorted(children) == expected.get(budget, [0, 1, 2, 3])
        count = [
            sum(len(children[a]["children"]) for a in block if a in children)
            for block in ((0, 1), (2, 3))
        ]
        assert count == [min(max(budget - 4, 0), 2), min(max(budget - 6, 0), 2)]


def test_subtree_ends_while_others_go_on():
    model = random_tables(6, num_tables=1, num_actions=4)
    model.next_state.clamp_(min=1)
    model.reward[0, 0, :2], model.discount[0, 0, :2] = torch.tensor([0.0, 50.0]), 0.0
    output = dvts(14, num_groups=2, num_children=2).plan(model, torch.arange(1))
    assert model.step_rows == [4, 2, 2, 2, 2, 2]
    assert (int(output.action), float(output.value)) == (1, 50.0)
    children = output.tree.to_dict(0)["children"]
    assert [bool(child["children"]) for child in children[:2]] == [False, False]


def test_all_finished_ends_the_search():
    for ends in ({"terminal": 1.0}, {"dead": 1.0}):
        model = random_tables(7, num_actions=4, **ends)
        model.next_state.clamp_(min=1)
        dvts(50, num_groups=2, num_children=2).plan(model, torch.arange(4))
        assert model.step_rows == [16]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_max_depth_bounds_the_calls(depth):
    model = random_tables(8, num_actions=4)
    planner = dvts(1000, num_groups=2, num_children=2, max_depth=depth)
    tree = planner.plan(model, torch.arange(4)).tree
    assert model.step_rows == [16] * depth
    assert tree.num_nodes == 1 + 4 * depth


def test_ties_go_to_the_lowest_action():
    model = random_tables(9, num_actions=4, discount=1.0)
    for table in (model.reward, model.value):
        table.zero_()
    planner = dvts(50, num_groups=2, num_children=2, max_depth=2)
    output = planner.plan(model, torch.arange(4))
    assert output.action.tolist() == [0, 0, 0, 0]
    for row in range(4):
        children = output.tree.to_dict(row)["children"]
        assert [len(child["children"]) for child in children] == [2, 0, 2, 0]
