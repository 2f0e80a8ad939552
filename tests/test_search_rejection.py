"""Speculative rejection against lists, and against the searches it contains."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import BestOfNPlanner, RejectionPlanner
from tests.search_reference import TableModel, random_tables
from tests.test_search_diverse_beam import paths_in_tree

CHECKS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def paths_by_plain_rejection(
    model: TableModel, table: int, *, budget: int, lines: int, keep: float
) -> dict[tuple[int, ...], float]:
    """What a list-based search evaluates: the score of each action path."""

    def valid_actions(state: int) -> list[int]:
        return model.valid_actions[table, state].nonzero().flatten().tolist()

    scores: dict[tuple[int, ...], float] = {}
    frontier = [((), 0, 0.0, 1.0)]
    while frontier:
        reached = []
        for path, state, gained, discount in frontier:
            actions = valid_actions(state)[: lines if path == () else 1]
            likely = sorted(actions, key=lambda a: -float(model.prior_logits[table, state, a]))
            for action in sorted(likely[: budget - len(scores)]):
                child = int(model.next_state[table, state, action])
                total = gained + discount * float(model.reward[table, state, action])
                rest = discount * float(model.discount[table, state, action])
                score = total + rest * float(model.value[table, child])
                scores[(*path, action)] = score
                ends = float(model.discount[table, state, action]) == 0
                if not ends and valid_actions(child):
                    reached.append((-score, len(reached), ((*path, action), child, total, rest)))
        reached.sort()
        frontier = [line for _, _, line in reached[: math.ceil(keep * len(reached))]]
    return scores


@CHECKS
@given(
    seed=st.integers(0, 10_000),
    num_actions=st.integers(1, 7),
    invalid=st.sampled_from([0.0, 0.5]),
    ends=st.sampled_from([0.1, 0.3]),
    budget=st.integers(1, 50),
    lines=st.integers(1, 8),
    keep=st.sampled_from([0.2, 0.5, 0.75, 1.0]),
)
def test_equals_the_search_over_lists(seed, num_actions, invalid, ends, budget, lines, keep):
    model = random_tables(
        seed, num_tables=3, num_actions=num_actions, invalid=invalid, terminal=ends, dead=ends
    )
    output = RejectionPlanner(budget, num_lines=lines, keep=keep).plan(model, torch.arange(3))
    spent = []
    for table in range(3):
        scores = paths_by_plain_rejection(model, table, budget=budget, lines=lines, keep=keep)
        spent.append(len(scores))
        assert paths_in_tree(output.tree.to_dict(table)) == scores.keys()
        expanded = {path[:-1] for path in scores}
        best, path = max((scores[path], path) for path in scores.keys() - expanded)
        assert float(output.value[table]) == pytest.approx(best, rel=1e-12, abs=1e-12)
        assert int(output.action[table]) == path[0]
    assert sum(model.step_rows) == sum(spent)
    assert output.tree.num_nodes == 1 + max(spent)


def test_where_every_action_ends_it_is_best_of_n():
    model, tables = random_tables(5, num_tables=6, num_actions=5, terminal=1.0), torch.arange(6)
    found = RejectionPlanner(100, num_lines=4).plan(model, tables)
    expected = BestOfNPlanner(4).plan(model, tables)
    assert torch.equal(found.action, expected.action)
    torch.testing.assert_close(found.value, expected.value)


def test_rejecting_costs_fewer_steps_and_finished_lines_take_no_place():
    model = random_tables(1, num_tables=1, num_actions=8, terminal=0.0, dead=0.0, num_states=60)
    steps = {}
    for keep in (0.5, 1.0):
        model.step_rows.clear()
        RejectionPlanner(8 * 5, num_lines=8, keep=keep).plan(model, torch.tensor([0]))
        steps[keep] = list(model.step_rows)
    assert steps[0.5][:4] == [8, 4, 2, 1]
    assert steps[1.0] == [8] * 5
