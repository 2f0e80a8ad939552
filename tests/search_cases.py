"""What tests of the search share: worlds, quiet planners, comparisons of whole trees."""

from dataclasses import fields
from typing import Any

import torch
from hypothesis import strategies as st

from search import GumbelMuZeroPlanner, MuZeroPlanner, Tree

ROWS = torch.arange(4)
BACKENDS = ["torch", "numba"]
MODES = ["mctx", "efficientzero", "gumbel"]
QUIET = {"dirichlet_fraction": 0, "temperature": 0}
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two_players": {"discount": -1.0},
    "invalid": {"invalid": 0.5},
    "terminal": {"terminal": 0.3},
    "dead_ends": {"dead": 0.3, "invalid": 0.3},
    "all_at_once": {"terminal": 0.2, "dead": 0.2, "invalid": 0.4, "discount": -1.0},
    "uniform_prior": {"uniform_prior": True, "terminal": 0.1},
    "one_action": {"num_actions": 1, "terminal": 0.1},
}
RANDOM_WORLDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "num_tables": st.integers(1, 4),
        "num_actions": st.integers(1, 6),
        "discount": st.sampled_from([1.0, 0.9, -0.9]),
        "invalid": st.sampled_from([0.0, 0.6]),
        "dead": st.sampled_from([0.0, 0.3]),
        "terminal": st.sampled_from([0.0, 0.3]),
    }
)


def quiet_planner(mode: str, num_simulations: int, **options: Any) -> Any:
    """A planner without noise, of one of MODES."""
    if mode == "gumbel":
        return GumbelMuZeroPlanner(num_simulations, **{"gumbel_scale": 0} | options)
    return MuZeroPlanner(num_simulations, **QUIET | {"mode": mode} | options)


def assert_equal_trees(found: Tree, expected: Tree, *, tolerance: float = 0.0) -> None:
    """All tensors: floats within a tolerance, embeddings where there is a node."""
    for name in (field.name for field in fields(Tree) if field.name != "embeddings"):
        one, other = getattr(found, name).cpu(), getattr(expected, name).cpu()
        assert one.dtype == other.dtype, name
        limit = tolerance if other.dtype.is_floating_point else 0.0
        torch.testing.assert_close(one, other, rtol=limit, atol=limit, msg=name)
    assert found.embeddings.keys() == expected.embeddings.keys()
    used = expected.node_visits > 0
    for name, leaf in expected.embeddings.items():
        other = found.embeddings[name].cpu()
        assert other.dtype == leaf.dtype, name
        assert torch.equal(other[used], leaf[used]), name


def assert_linked(tree: Tree) -> None:
    """Parents and children agree and lie in order, and nothing invalid is visited."""
    used = tree.node_visits > 0
    columns = torch.arange(tree.num_nodes).expand_as(tree.parents)
    assert torch.equal(tree.parents >= 0, used & (columns > 0))
    assert bool((tree.parents < columns).all())
    visited = tree.children_index >= 0
    assert torch.equal(visited, tree.children_visits > 0)
    assert not bool((visited & ~tree.valid_actions).any())
    row, node, action = visited.nonzero(as_tuple=True)
    child = tree.children_index[row, node, action]
    assert torch.equal(tree.parents[row, child], node)
    assert torch.equal(tree.action_from_parent[row, child], action)
    assert torch.equal(tree.children_visits[row, node, action], tree.node_visits[row, child])
    assert torch.equal(tree.children_values[row, node, action], tree.node_values[row, child])


def assert_consistent(tree: Tree) -> None:
    """The trees are linked, visits add up, and values are means of the returns backed up."""
    assert_linked(tree)
    used, visited = tree.node_visits > 0, tree.children_index >= 0
    own = tree.node_visits - tree.children_visits.sum(dim=-1)
    assert bool((own[used] >= 1).all())
    assert not bool(tree.node_visits[~used].any())
    qvalues = tree.children_rewards + tree.children_discounts * tree.children_values
    returns = own * tree.raw_values + (tree.children_visits * qvalues).sum(dim=-1)
    torch.testing.assert_close((tree.node_values * tree.node_visits)[used], returns[used])
    for name in ("children_rewards", "children_discounts", "children_values"):
        assert not bool(getattr(tree, name)[~visited].any())
