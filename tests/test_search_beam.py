"""Beam search against exhaustive search, its budget, and the tree it leaves."""

import pytest
import torch

from search import BeamPlanner, BestOfNPlanner
from tests.search_reference import TableModel, random_tables

WORLD = {"num_actions": 3, "invalid": 0.3, "terminal": 0.2, "dead": 0.1}


def best_return(model: TableModel, table: int, state: int, depth: int) -> tuple[float, int]:
    """Greatest return of any line of `depth` actions from a state, and its first action."""
    best = (float("-inf"), -1)
    for action in range(model.num_actions):
        if not model.valid_actions[table, state, action]:
            continue
        child = int(model.next_state[table, state, action])
        discount = float(model.discount[table, state, action])
        finished = discount == 0 or not bool(model.valid_actions[table, child].any())
        value = float(model.value[table, child])
        if depth > 1 and not finished:
            value, _ = best_return(model, table, child, depth - 1)
        total = float(model.reward[table, state, action]) + discount * value
        best = max(best, (total, action), key=lambda pair: (pair[0], -pair[1]))
    return best


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_large_width_equals_exhaustive_search(depth):
    model = random_tables(1, num_tables=8, **WORLD)
    output = BeamPlanner(200, beam_width=100, max_depth=depth).plan(model, torch.arange(8))
    for table in range(8):
        value, action = best_return(model, table, 0, depth)
        assert float(output.value[table]) == pytest.approx(value, abs=1e-12)
        assert int(output.action[table]) == action
    assert len(model.step_rows) <= depth


def test_depth_one_equals_best_of_n():
    model, tables = random_tables(2, num_tables=8, **WORLD), torch.arange(8)
    beam, best = BeamPlanner(3, max_depth=1).plan(model, tables), BestOfNPlanner(3)
    expected = best.plan(model, tables)
    assert torch.equal(beam.action, expected.action)
    torch.testing.assert_close(beam.value, expected.value)
    assert torch.equal(beam.action_weights, expected.action_weights)


@pytest.mark.parametrize("budget", [1, 2, 7, 40])
def test_tree_counts_every_evaluated_node_within_budget(budget):
    model = random_tables(3, num_tables=8, **WORLD)
    tree = BeamPlanner(budget, beam_width=2).plan(model, torch.arange(8)).tree
    evaluated = (tree.node_visits > 0).sum(dim=-1) - 1
    assert torch.equal(tree.node_visits[:, 0], 1 + evaluated)
    assert int(evaluated.max()) == budget
    assert sum(model.step_rows) == int(evaluated.sum())
    used = tree.node_visits > 0
    assert torch.equal(tree.node_visits[used], 1 + tree.children_visits.sum(dim=-1)[used])
    visited = tree.children_index >= 0
    assert bool((tree.valid_actions | ~visited).all())
    qvalues = tree.children_rewards + tree.children_discounts * tree.children_values
    best = qvalues.masked_fill(~visited, -torch.inf).amax(dim=-1)
    expected = torch.where(visited.any(dim=-1), best, tree.raw_values)
    torch.testing.assert_close(tree.node_values[used], expected[used])


@pytest.mark.parametrize("budget", [5, 40, 100_000])
def test_tree_has_as_many_nodes_as_were_evaluated(budget):
    model = random_tables(10, num_tables=8, **WORLD)
    planner = BeamPlanner(budget, beam_width=2, max_depth=5)
    tree = planner.plan(model, torch.arange(8)).tree
    spent = tree.node_visits[:, 0] - 1
    assert tree.num_nodes == 1 + int(spent.max()) <= 1 + min(budget, 3 + 4 * 6)
    assert {leaf.shape[1] for leaf in tree.embeddings.values()} == {tree.num_nodes}
    for row in range(8):  # in each row the first columns are in use
        used = (tree.node_visits[row] > 0).tolist()
        assert used == [node <= int(spent[row]) for node in range(tree.num_nodes)]
        alone = planner.plan(model, torch.tensor([row])).tree
        assert alone.num_nodes == 1 + int(spent[row])
        assert alone.to_dict(0) == tree.to_dict(row)


def test_embeddings_are_those_of_the_nodes():
    model = random_tables(11, num_tables=4, **WORLD)
    tree = BeamPlanner(30, beam_width=2).plan(model, torch.arange(4)).tree

    def check(row: int, node: dict, state: int, path: tuple[int, ...]) -> None:
        column = node["node"]
        assert int(tree.embeddings["state"][row, column]) == state
        trace = (-1, -1, -1, *path)[-3:]
        assert tuple(tree.embeddings["trace"][row, column].tolist()) == trace
        for child in node["children"]:
            action = child["action"]
            check(row, child, int(model.next_state[row, state, action]), (*path, action))

    for row in range(4):
        check(row, tree.to_dict(row), 0, ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_searched_in_single(dtype):
    model = random_tables(12, dtype=dtype, **WORLD)
    wide = random_tables(12, dtype=dtype, **WORLD)
    for name in ("reward", "discount", "prior_logits", "value"):
        setattr(wide, name, getattr(wide, name).float())
    found = BeamPlanner(30).plan(model, torch.arange(4))
    expected = BeamPlanner(30).plan(wide, torch.arange(4))
    assert found.value.dtype == found.action_weights.dtype == torch.float32
    assert torch.equal(found.action, expected.action)
    assert torch.equal(found.value, expected.value)
    assert torch.equal(found.tree.children_visits, expected.tree.children_visits)


def test_scores_that_half_precision_would_round_together_are_told_apart():
    """256 and 256 + 1, which is no bfloat16: the second is kept and expanded."""
    model = random_tables(13, num_tables=1, num_actions=2, discount=1.0, dtype=torch.bfloat16)
    model.next_state[0, 0] = torch.tensor([1, 2])
    model.reward[0, 0] = 256.0
    model.value[0, 1:3] = torch.tensor([0.0, 1.0])
    tree = BeamPlanner(4, beam_width=1).plan(model, torch.arange(1)).tree
    assert [len(child["children"]) for child in tree.to_dict(0)["children"]] == [0, 2]


def test_width_one_follows_the_best_candidate():
    model = random_tables(4, num_actions=3)
    tree = BeamPlanner(9, beam_width=1, max_depth=3).plan(model, torch.arange(4)).tree
    assert model.step_rows == [12, 12, 12]
    for row in range(4):
        node, score = tree.to_dict(row), None
        while node["children"]:
            expanded = [child for child in node["children"] if child["children"]]
            score = [c["reward"] + c["discount"] * raw(tree, row, c) for c in node["children"]]
            best = node["children"][score.index(max(score))]
            assert expanded in ([], [best])
            node = best


def raw(tree, row, node) -> float:
    return float(tree.raw_values[row, node["node"]])


def expanded_by_plain_beam(model: TableModel, table: int, *, width: int, depth: int) -> set:
    """The action paths a list-based beam search expands; a beam is (score, path, state, G, D)."""
    beams, expanded = [(0.0, (), 0, 0.0, 1.0)], set()
    for _ in range(depth):
        candidates = []
        for beam in beams:
            _, path, state, gained, discount = beam
            valid = model.valid_actions[table, state].nonzero().flatten().tolist()
            if discount == 0 or not valid:
                candidates.append(beam)
                continue
            expanded.add(path)
            for action in valid:
                child = int(model.next_state[table, state, action])
                total = gained + discount * float(model.reward[table, state, action])
                rest = discount * float(model.discount[table, state, action])
                score = total + rest * float(model.value[table, child])
                candidates.append((score, (*path, action), child, total, rest))
        beams = sorted(candidates, key=lambda beam: -beam[0])[:width]
    return expanded


def expanded_in_tree(node, path=()) -> set:
    below = [expanded_in_tree(child, (*path, child["action"])) for child in node["children"]]
    return set().union({path}, *below) if below else set()


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("discount", [0.3, 1.5])
def test_kept_candidates_are_the_best_by_discounted_score(discount, width):
    model = random_tables(9, num_tables=8, discount=discount, **WORLD)
    planner = BeamPlanner(100, beam_width=width, max_depth=4)
    tree = planner.plan(model, torch.arange(8)).tree
    for table in range(8):
        expected = expanded_by_plain_beam(model, table, width=width, depth=4)
        assert expanded_in_tree(tree.to_dict(table)) == expected


def test_partly_affordable_depth_expands_best_beam_and_highest_prior_first():
    """Budget 3 + 2: both actions of highest prior below the best first move."""
    model = random_tables(5, num_actions=3)
    tree = BeamPlanner(5, beam_width=3).plan(model, torch.arange(4)).tree
    for row in range(4):
        qvalues = model.reward[row, 0] + 0.97 * model.value[row, model.next_state[row, 0]]
        first = int(qvalues.argmax())
        state = int(model.next_state[row, 0, first])
        expected = model.prior_logits[row, state].topk(2).indices.sort().values.tolist()
        children = {c["action"]: c["children"] for c in tree.to_dict(row)["children"]}
        assert [c["action"] for c in children.pop(first)] == expected
        assert not any(children.values())


def test_finished_candidates_stay_and_end_the_search():
    model = random_tables(6, num_actions=3, terminal=1.0)
    output = BeamPlanner(50, beam_width=2).plan(model, torch.arange(4))
    assert model.step_rows == [12]
    assert torch.equal(output.action, model.reward[:, 0].argmax(dim=-1))
    torch.testing.assert_close(output.value, model.reward[:, 0].amax(dim=-1))


def test_finished_candidate_keeps_its_place_among_deeper_ones():
    model = random_tables(7, num_tables=1, num_actions=2)
    model.reward.zero_()
    model.value.zero_()
    model.reward[0, 0, 0], model.discount[0, 0, 0] = 100.0, 0.0  # move 0 finishes, worth most
    model.next_state.clamp_(min=1)  # and is there only once
    output = BeamPlanner(20, beam_width=2, max_depth=4).plan(model, torch.arange(1))
    assert model.step_rows == [2, 2, 2, 2]  # one open beam of two actions at each depth
    assert (int(output.action), float(output.value)) == (0, 100.0)


def test_negative_discount_is_refused():
    model = random_tables(8, discount=-1.0)
    with pytest.raises(ValueError, match=r"discount of -1.0; required .* Use MuZeroPlanner"):
        BeamPlanner(10).plan(model, torch.arange(4))
