"""Going on from an earlier search: what is kept, and that the search goes on from just that."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search import Tree, keep_subtree, run_mcts
from search.model import RootOutput
from search.qtransforms import qtransform_by_parent_and_siblings
from search.reuse import replace_roots
from search.selection import PuctSelection
from tests.pairwise import pairwise
from tests.search_cases import (
    BACKENDS,
    MODES,
    RANDOM_WORLDS,
    ROWS,
    WORLDS,
    assert_consistent,
    assert_equal_trees,
    quiet_planner,
)
from tests.search_reference import (
    ReferenceSearch,
    assert_same_tree,
    first_best,
    random_tables,
    to_dict,
)

TOLERANCE = 1e-10  # float64: running means against sums
START = torch.stack([ROWS, torch.zeros_like(ROWS)], dim=1)  # table and state
SELECT = PuctSelection(qtransform_by_parent_and_siblings)
EDGES = [
    "children_prior_logits",
    "children_visits",
    "children_rewards",
    "children_discounts",
    "children_values",
    "valid_actions",
]
NODES = ["node_visits", "raw_values", "node_values", "terminal"]


class WalkingModel:
    """A table model whose roots stand in any state: an observation `[B, 2]` is table and state."""

    def __init__(self, tables):
        self.tables, self.num_actions = tables, tables.num_actions
        self.steps = []

    def root(self, observation, *, generator=None):
        table, state = observation.unbind(1)
        output = self.tables.root(table)
        return RootOutput(
            prior_logits=self.tables.prior_logits[table, state],
            value=self.tables.value[table, state],
            valid_actions=self.tables.valid_actions[table, state],
            embedding={**output.embedding, "state": state},
        )

    def step(self, embedding, action, *, generator=None):
        self.steps.append(action.shape[0])
        return self.tables.step(embedding, action)

    def move(self, observation, action):
        table, state = observation.unbind(1)
        return torch.stack([table, self.tables.next_state[table, state, action]], dim=1)


def search(world, *, num_simulations=30, seed=1, **options):
    planner = quiet_planner("mctx", num_simulations, **options)
    return planner.plan(random_tables(seed, **WORLDS[world]), ROWS).tree


def grow(model, root, kept, backend, *, num_simulations=5):
    """`run_mcts` by PUCT."""
    return run_mcts(
        model,
        root,
        num_simulations=num_simulations,
        root_action_selection=SELECT,
        interior_action_selection=SELECT,
        kept=kept,
        backend=backend,
    )


def go_on(planner, model, observation=START, **options):
    """Plans, moves by the most visited actions and plans on: first tree, kept tree, output."""
    tree = planner.plan(model, observation, **options).tree
    action = most_visited(tree)
    kept = keep_subtree(tree, action)
    return tree, kept, planner.plan(model, model.move(observation, action), kept=kept, **options)


def most_visited(tree):
    return tree.children_visits[:, 0].argmax(dim=-1)


def least_visited(tree):
    counts = tree.children_visits[:, 0]
    return counts.masked_fill(counts == 0, 10**6).argmin(dim=-1)


def alternating(tree):
    """`[B]`, the most and the least visited actions in turn: rows keep more and fewer nodes."""
    return torch.where(ROWS % 2 == 0, most_visited(tree), least_visited(tree))


def columns_below(tree, row, column):
    found, stack = [], [column]
    while stack:
        at = stack.pop()
        found.append(at)
        stack += [child for child in tree.children_index[row, at].tolist() if child >= 0]
    return sorted(found)


def assert_kept(kept, tree, row, old):
    """Columns 0, 1, ... of `kept` are columns `old` of `tree`, in every field."""
    new = range(len(old))
    for name in NODES + EDGES:
        assert torch.equal(getattr(kept, name)[row, : len(old)], getattr(tree, name)[row, old])
    for name, leaf in kept.embeddings.items():
        assert torch.equal(leaf[row, : len(old)], tree.embeddings[name][row, old])
    moved = dict(zip(old, new, strict=True)) | {-1: -1}
    for before, after in zip(old, new, strict=True):
        expected = [moved[child] for child in tree.children_index[row, before].tolist()]
        assert kept.children_index[row, after].tolist() == expected
        if after > 0:
            assert int(kept.parents[row, after]) == moved[int(tree.parents[row, before])]
            assert kept.action_from_parent[row, after] == tree.action_from_parent[row, before]
    assert (int(kept.parents[row, 0]), int(kept.action_from_parent[row, 0])) == (-1, -1)


def assert_unused(tree, row, first):
    for name in ("parents", "action_from_parent", "children_index"):
        assert bool((getattr(tree, name)[row, first:] == -1).all())
    for name in [*NODES, *EDGES]:
        assert not bool(getattr(tree, name)[row, first:].any()), name


def clone(tree):
    copies = {f.name: getattr(tree, f.name).clone() for f in fields(Tree) if f.name != "embeddings"}
    return Tree(**copies, embeddings={k: leaf.clone() for k, leaf in tree.embeddings.items()})


def output_of(kept, **changes):
    """A root output that says of each kept root what the tree says already."""
    root = RootOutput(
        prior_logits=kept.children_prior_logits[:, 0].clone(),
        value=kept.raw_values[:, 0].clone(),
        valid_actions=kept.valid_actions[:, 0].clone(),
        embedding={name: leaf[:, 0].clone() for name, leaf in kept.embeddings.items()},
    )
    return replace(root, **changes)


# Cutting a subtree out.


@pairwise(world=WORLDS, max_depth=[None, 1, 2], choose=[most_visited, least_visited, alternating])
def test_kept_tree_is_the_subtree_below_the_action(world, max_depth, choose):
    tree = search(world, max_depth=max_depth)
    action, before = choose(tree), clone(tree)
    kept = keep_subtree(tree, action)
    sizes = []
    for row in range(4):
        child = int(tree.children_index[row, 0, action[row]])
        old = columns_below(tree, row, child)
        assert_kept(kept, tree, row, old)
        assert_unused(kept, row, len(old))
        sizes.append(len(old))
    assert kept.num_nodes == max(sizes)
    assert (kept.node_visits > 0).sum(dim=-1).tolist() == sizes
    assert_consistent(kept)
    assert_equal_trees(tree, before)


def test_unvisited_action_keeps_nothing():
    tree = search("plain", num_simulations=3)
    counts = tree.children_visits[:, 0]
    unvisited = (counts == 0).int().argmax(dim=-1)
    assert not bool(counts[ROWS, unvisited].any())
    action = torch.where(ROWS == 2, unvisited, most_visited(tree))
    kept = keep_subtree(tree, action)
    assert (kept.node_visits[:, 0] > 0).tolist() == [True, True, False, True]
    assert_unused(kept, 2, 0)
    kept = keep_subtree(tree, unvisited)
    assert kept.num_nodes == 1
    for row in range(4):
        assert_unused(kept, row, 0)


def test_leaf_at_the_depth_limit_keeps_all_its_visits_also_with_another_value():
    tree = search("plain", num_simulations=20, max_depth=1)
    kept = keep_subtree(tree, most_visited(tree))
    assert kept.num_nodes == 1
    assert torch.equal(kept.node_visits[:, 0], tree.children_visits[:, 0].amax(dim=-1))
    assert int(kept.node_visits.min()) > 1
    torch.testing.assert_close(kept.node_values, kept.raw_values)
    replaced = replace_roots(kept, output_of(kept, value=kept.raw_values[:, 0] + 1))
    assert torch.equal(replaced.node_visits, kept.node_visits)
    torch.testing.assert_close(replaced.node_values, kept.raw_values + 1)


def test_terminal_child_stays_terminal_until_its_root_is_replaced():
    model = random_tables(3)
    model.discount[:, 0] = 0.0  # every root action ends the episode
    tree = quiet_planner("mctx", 12).plan(model, ROWS).tree
    kept = keep_subtree(tree, most_visited(tree))
    assert bool(kept.terminal[:, 0].all())
    assert kept.num_nodes == 1
    replaced = replace_roots(kept, output_of(kept))
    assert not bool(replaced.terminal[:, 0].any())
    assert torch.equal(replaced.node_visits, kept.node_visits)


def test_subtree_can_be_kept_of_a_kept_tree():
    tree = search("plain", num_simulations=60)
    once = keep_subtree(tree, most_visited(tree))
    twice = keep_subtree(once, most_visited(once))
    for row in range(4):
        child = int(tree.children_index[row, 0, most_visited(tree)[row]])
        grandchild = int(tree.children_index[row, child, most_visited(once)[row]])
        assert_kept(twice, tree, row, columns_below(tree, row, grandchild))
    assert twice.num_nodes > 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_actions_of_any_integer_dtype_are_read_alike(dtype):
    tree = search("plain")
    action = most_visited(tree)
    assert_equal_trees(keep_subtree(tree, action.to(dtype)), keep_subtree(tree, action))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(4), r"shape \[4\] and dtype torch.float32; required shape \[4\]"),
        (torch.ones(4) > 0, r"shape \[4\] and dtype torch.bool; .*one whole number"),
        (torch.zeros(3).long(), r"shape \[3\] .*required shape \[4\]"),
        (torch.zeros(4, 1).long(), r"shape \[4, 1\]"),
        (torch.tensor([0, 1, 5, 0]), r"\[0, 1, 5, 0\]; required 0 to 4"),
        (torch.tensor([0, -1, 0, 0]), r"\[0, -1, 0, 0\]; required 0 to 4"),
    ],
)
def test_action_that_is_none_is_refused(action, message):
    with pytest.raises(ValueError, match=f"keep_subtree.action: found {message}"):
        keep_subtree(search("plain"), action)


# Replacing roots.


@pytest.mark.parametrize("world", WORLDS)
def test_root_that_says_the_same_changes_nothing(world):
    tree = search(world)
    kept = keep_subtree(tree, most_visited(tree))
    root = output_of(kept)
    # A dead end cannot be planned from; its row is replaced like any other.
    replaced = replace_roots(kept, root)
    torch.testing.assert_close(replaced.node_values, kept.node_values, rtol=0, atol=TOLERANCE)
    names = [f.name for f in fields(Tree) if f.name not in ("embeddings", "node_values")]
    names.remove("terminal")
    for name in names:
        assert torch.equal(getattr(replaced, name), getattr(kept, name)), name


def test_root_that_says_something_else_is_believed():
    tree = search("plain")
    kept = keep_subtree(tree, most_visited(tree))
    before = clone(kept)
    generator = torch.Generator().manual_seed(0)
    root = output_of(
        kept,
        prior_logits=torch.randn(4, 5, generator=generator, dtype=torch.float64),
        value=torch.tensor([10.0, -7.0, 0.0, 3.0], dtype=torch.float64),
        embedding={name: leaf[:, 0] + 1 for name, leaf in kept.embeddings.items()},
    )
    replaced = replace_roots(kept, root)
    assert torch.equal(replaced.children_prior_logits[:, 0], root.prior_logits)
    assert torch.equal(replaced.raw_values[:, 0], root.value)
    for name, leaf in replaced.embeddings.items():
        assert torch.equal(leaf[:, 0], root.embedding[name])
        below = kept.parents >= 0
        assert torch.equal(leaf[below], kept.embeddings[name][below])
    for row in range(4):
        returns = [float(root.value[row])]
        for action in range(5):
            q = kept.qvalues(torch.zeros(4, dtype=torch.int64))[row, action]
            returns += [float(q)] * int(kept.children_visits[row, 0, action])
        assert len(returns) == int(replaced.node_visits[row, 0])
        assert float(replaced.node_values[row, 0]) == pytest.approx(sum(returns) / len(returns))
    assert torch.equal(replaced.children_visits, kept.children_visits)
    assert torch.equal(replaced.node_values[:, 1:], kept.node_values[:, 1:])
    assert_consistent(replaced)
    assert_equal_trees(kept, before)


def test_action_that_became_invalid_loses_its_subtree():
    tree = search("plain", num_simulations=40)
    kept = keep_subtree(tree, most_visited(tree))
    lost = most_visited(kept)
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[ROWS, lost] = False
    valid[3] = True  # this row loses nothing
    replaced = replace_roots(kept, output_of(kept, valid_actions=valid))
    assert_consistent(replaced)
    for row in range(4):
        gone = set()
        if row != 3:
            gone = set(columns_below(kept, row, int(kept.children_index[row, 0, lost[row]])))
        old = [c for c in columns_below(kept, row, 0) if c not in gone]
        assert len(gone) > 1 or row == 3
        assert_unused(replaced, row, len(old))
        for new, column in enumerate(old[1:], start=1):
            for name in NODES + EDGES:
                before, after = getattr(kept, name)[row, column], getattr(replaced, name)[row, new]
                assert torch.equal(after, before), name
            for name, leaf in replaced.embeddings.items():
                assert torch.equal(leaf[row, new], kept.embeddings[name][row, column])
        counts = kept.children_visits[row, 0] * valid[row]
        assert torch.equal(replaced.children_visits[row, 0], counts)
        assert int(replaced.node_visits[row, 0]) == 1 + int(counts.sum())
    lowest = torch.finfo(torch.float64).min
    assert bool((replaced.children_prior_logits[:, 0][~valid] == lowest).all())
    assert torch.equal(replaced.valid_actions[:, 0], valid)


def test_action_that_became_valid_can_be_searched():
    tables = random_tables(4, invalid=0.5)
    tree = quiet_planner("mctx", 20).plan(tables, ROWS).tree
    kept = keep_subtree(tree, most_visited(tree))
    closed = ~kept.valid_actions[:, 0]
    assert bool(closed.any(dim=-1).all())
    root = output_of(
        kept,
        valid_actions=torch.ones(4, 5, dtype=torch.bool),
        prior_logits=torch.where(closed, 9.0, 0.0).double(),
    )
    model = WalkingModel(tables)
    for backend in BACKENDS:
        after = grow(model, root, kept, backend)
        assert_consistent(after)
        assert bool((after.children_visits[:, 0] * closed).sum(dim=-1).gt(0).all())


def test_row_that_kept_nothing_starts_anew():
    tree = search("plain", num_simulations=3)
    unvisited = (tree.children_visits[:, 0] == 0).int().argmax(dim=-1)
    kept = keep_subtree(tree, torch.where(ROWS == 1, unvisited, most_visited(tree)))
    root = output_of(kept, value=torch.full((4,), 2.5).double(), valid_actions=torch.ones(4, 5) > 0)
    replaced = replace_roots(kept, root)
    assert_consistent(replaced)
    assert int(replaced.node_visits[1, 0]) == 1
    assert float(replaced.node_values[1, 0]) == float(replaced.raw_values[1, 0]) == 2.5
    assert_unused(replaced, 1, 1)
    assert bool((replaced.children_index[1] == -1).all())


def test_model_in_half_precision_goes_on_in_float32():
    tables = random_tables(5, dtype=torch.float32)

    def search_half(kept, backend):
        root = tables.root(ROWS)
        root = replace(root, value=root.value.half(), prior_logits=root.prior_logits.half())
        return grow(tables, root, kept, backend)

    for backend in BACKENDS:
        tree = search_half(None, backend)
        again = search_half(keep_subtree(tree, most_visited(tree)), backend)
        assert again.node_values.dtype == torch.float32
        assert_consistent(again)


def change_root(leaf=None, **changes):
    """A function that changes fields of a root output, and its leaf `trace`."""

    def change(root):
        embedding = dict(root.embedding)
        if leaf is not None:
            embedding["trace"] = leaf(embedding["trace"])
        changed = {name: change(getattr(root, name)) for name, change in changes.items()}
        return replace(root, **({"embedding": embedding} | changed))

    return change


def first_rows(value):
    """Two rows of a tensor or of each leaf."""
    if isinstance(value, torch.Tensor):
        return value[:2]
    return {name: leaf[:2] for name, leaf in value.items()}


FIELDS = ("prior_logits", "value", "valid_actions", "embedding")
FAULTS = {
    "rows": (
        change_root(**dict.fromkeys(FIELDS, first_rows)),
        r"rows and actions \[4, 5\]; required \[2, 5\].*drop finished rows",
    ),
    "dtype": (
        change_root(value=torch.Tensor.float, prior_logits=torch.Tensor.float),
        r"dtype torch.float64; required torch.float32",
    ),
    "missing_leaf": (
        change_root(embedding=lambda leaves: {"state": leaves["state"]}),
        r"embedding .*'trace'.*; required .*'state'",
    ),
    "leaf_shape": (change_root(lambda trace: trace[:, :2]), r"embedding .*\[3\].*; .*\[2\]"),
    "leaf_dtype": (change_root(torch.Tensor.long), r"embedding .*int32.*; .*'trace': .*int64"),
}


class FaultyRoot(WalkingModel):
    def __init__(self, tables, change):
        super().__init__(tables)
        self.change = change

    def root(self, observation, *, generator=None):
        return self.change(super().root(observation))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_trees_of_another_search_are_refused(fault, backend):
    change, message = FAULTS[fault]
    tables = random_tables(6)
    tree = quiet_planner("mctx", 8).plan(tables, ROWS).tree
    kept, root = keep_subtree(tree, most_visited(tree)), change(tables.root(ROWS))
    with pytest.raises(ValueError, match=f"kept: found trees with {message}"):
        replace_roots(kept, root)
    with pytest.raises(ValueError, match=f"kept: found trees with {message}"):
        grow(tables, root, kept, backend)
    model = FaultyRoot(tables, change)
    for mode in MODES:
        with pytest.raises(ValueError, match=f"kept: found trees with {message}"):
            quiet_planner(mode, 4, backend=backend).plan(model, START, kept=kept)


def test_trees_of_another_number_of_actions_are_refused():
    tree = search("plain")
    other = random_tables(1, num_actions=8).root(ROWS)
    with pytest.raises(ValueError, match=r"rows and actions \[4, 5\]; required \[4, 8\]"):
        replace_roots(keep_subtree(tree, most_visited(tree)), other)


# Going on.


def choose_moves(tree, model, observation):
    table = observation[:, 0]
    actions = torch.arange(model.num_actions).expand_as(tree.children_visits[:, 0])
    state = model.tables.next_state[table[:, None], observation[:, 1:], actions]
    open_ = model.tables.valid_actions[table[:, None], state].any(dim=-1)
    open_ &= tree.valid_actions[:, 0]
    return torch.where(open_, tree.children_visits[:, 0] + 1, 0).argmax(dim=-1)


@pairwise(world=WORLDS, mode=MODES, leaves=[1, 3])
def test_both_backends_go_on_alike(world, mode, leaves):
    budget = 15
    models = {backend: WalkingModel(random_tables(7, **WORLDS[world])) for backend in BACKENDS}
    planners = {b: quiet_planner(mode, budget, backend=b, leaves_per_step=leaves) for b in BACKENDS}
    observation = START
    kept, num_kept, carried = dict.fromkeys(BACKENDS), 1, 0
    for _ in range(3):
        outputs = {}
        for backend, planner in planners.items():
            models[backend].steps.clear()
            outputs[backend] = planner.plan(models[backend], observation, kept=kept[backend])
            assert sum(models[backend].steps) <= budget * 4
            assert max(models[backend].steps, default=0) <= leaves * 4
        trees = [output.tree for output in outputs.values()]
        assert torch.equal(outputs["torch"].action, outputs["numba"].action)
        assert_equal_trees(*trees, tolerance=TOLERANCE)
        assert_consistent(trees[1])
        assert trees[0].num_nodes == num_kept + budget
        new = trees[1].children_visits[:, 0].sum(dim=-1) - carried
        assert new.tolist() == [budget] * 4
        action = choose_moves(trees[0], models["torch"], observation)
        kept = {b: keep_subtree(output.tree, action) for b, output in outputs.items()}
        observation = models["torch"].move(observation, action)
        # Where every action leads to a dead end the game starts anew, and the tree tags along.
        state = observation[:, 1]
        dead = ~models["torch"].tables.valid_actions[ROWS, state].any(dim=-1)
        observation[:, 1] = state.masked_fill(dead, 0)
        replaced = replace_roots(kept["numba"], models["numba"].root(observation))
        num_kept, carried = replaced.num_nodes, replaced.children_visits[:, 0].sum(dim=-1)


class ContinuedSearch(ReferenceSearch):
    """The reference, going on below an action of an earlier reference search.

    It keeps the lists of returns that nodes have, so means and visits need no recomputing.
    """

    def __init__(self, before, action, *, num_simulations, max_depth, first, gumbel=None):
        vars(self).update(vars(copy.deepcopy(before)))
        old, self.kept_visits = self.root, {}
        if action in old.children:
            self.root = old.children[action][2]
            self.kept_visits = {a: self.root.visits(a) for a in self.root.children}
        else:
            state = self.tables["next_state"][old.state][action]
            self.root = self.make_node(state, discount=1.0, index=0)
        self.root.terminal = False
        for index, node in enumerate(sorted(self.nodes(), key=lambda node: node.index)):
            node.index = index
        self.gumbel, self.max_depth = gumbel, max_depth
        pulls = self.halving(min(16, sum(self.root.valid)), num_simulations)
        self.schedule = [-1] * (first - 1) + pulls
        for simulation in range(first - 1, first - 1 + num_simulations):
            leaf, path = self.walk(simulation)
            leaf.speak()
            value = leaf.raw
            leaf.returns.append(value)
            leaf.waiting -= 1
            for node, taken in reversed(path):
                reward, discount, _ = node.children[taken]
                value = reward + discount * value
                node.returns.append(value)
                node.waiting -= 1

    def nodes(self):
        found, stack = [], [self.root]
        while stack:
            found.append(stack.pop())
            stack += [child for _, _, child in found[-1].children.values()]
        return found

    def new_visits(self, action):
        return self.root.visits(action) - self.kept_visits.get(action, 0)

    def select(self, node, depth, simulation):
        if self.gumbel is None or depth > 0:
            return super().select(node, depth, simulation)
        level = self.schedule[simulation]
        allowed = [ok and self.new_visits(a) == level for a, ok in enumerate(node.valid)]
        return first_best(self.root_scores(), allowed)


@pairwise(world=WORLDS, mode=MODES, max_depth=[None, 2], backend=BACKENDS)
def test_search_that_goes_on_equals_the_reference_that_goes_on(world, mode, max_depth, backend):
    tables = random_tables(8, **WORLDS[world])
    model = WalkingModel(tables)
    planner = quiet_planner(mode, 25, max_depth=max_depth, backend=backend)
    tree = planner.plan(model, START).tree
    action = choose_moves(tree, model, START)
    kept = keep_subtree(tree, action)
    after = replace(planner, num_simulations=20).plan(model, model.move(START, action), kept=kept)
    gumbel = [0.0] * model.num_actions if mode == "gumbel" else None
    for row in range(4):
        reference = ReferenceSearch(
            tables,
            row,
            num_simulations=25,
            max_depth=max_depth,
            gumbel=gumbel,
            efficientzero=mode == "efficientzero",
        )
        assert_same_tree(tree.to_dict(row), to_dict(reference.root), TOLERANCE)
        continued = ContinuedSearch(
            reference,
            int(action[row]),
            num_simulations=20,
            max_depth=max_depth,
            first=kept.num_nodes,
            gumbel=gumbel,
        )
        assert_same_tree(after.tree.to_dict(row), to_dict(continued.root), TOLERANCE)
        assert float(after.value[row]) == pytest.approx(continued.root.value, abs=TOLERANCE)
        if mode == "gumbel":
            counts = [continued.new_visits(a) for a in range(model.num_actions)]
            best = first_best(continued.root_scores(), [c == max(counts) for c in counts])
            assert int(after.action[row]) == best


@pytest.mark.parametrize("backend", BACKENDS)
def test_halving_counts_new_simulations_only(backend):
    """8 actions, 24 simulations: rounds of 8, 4 and 2 give 1, 3 and 7 new visits, kept or not."""
    planner = quiet_planner("gumbel", 24, backend=backend)
    tree, kept, output = go_on(planner, WalkingModel(random_tables(9, num_actions=8)))
    assert sorted(tree.children_visits[0, 0].tolist()) == [1, 1, 1, 1, 3, 3, 7, 7]
    before = kept.children_visits[:, 0]
    assert bool((before.sum(dim=-1) > 0).all())
    new = output.tree.children_visits[:, 0] - before
    for row in range(4):
        assert sorted(new[row].tolist()) == [1, 1, 1, 1, 3, 3, 7, 7]
    # The action is one that halving let through to the end, not one that was visited before.
    assert bool((new[ROWS, output.action] == 7).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_root_noise_moves_the_root_of_a_kept_tree_only(backend):
    tables = random_tables(10)
    planner = quiet_planner("mctx", 20, dirichlet_fraction=0.5, backend=backend)
    noise = torch.eye(5, dtype=torch.float64)[ROWS]
    _, kept, output = go_on(planner, WalkingModel(tables), dirichlet_noise=noise)
    tree, state = output.tree, kept.embeddings["state"][:, 0]
    plain = torch.softmax(tables.prior_logits[ROWS, state], dim=-1)
    prior = torch.softmax(tree.children_prior_logits[:, 0], dim=-1)
    torch.testing.assert_close(prior, 0.5 * plain + 0.5 * noise)
    rows, nodes = (tree.parents >= 0).nonzero(as_tuple=True)
    states = tree.embeddings["state"][rows, nodes]
    assert torch.equal(tree.children_prior_logits[rows, nodes], tables.prior_logits[rows, states])


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_limit_counts_from_the_new_root(backend):
    model = WalkingModel(random_tables(11, num_actions=2))
    _, _, output = go_on(quiet_planner("mctx", 40, max_depth=3, backend=backend), model)
    for row in range(4):
        depths = {0: 0}
        for node in range(1, output.tree.num_nodes):
            parent = int(output.tree.parents[row, node])
            if parent >= 0:
                depths[node] = depths[parent] + 1
        assert max(depths.values()) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_shallower_limit_stops_at_known_nodes(backend):
    model = WalkingModel(random_tables(12, num_actions=2))
    tree, kept, _ = go_on(quiet_planner("mctx", 60, backend=backend), model)
    model.steps.clear()
    observation = model.move(START, most_visited(tree))
    shallow = quiet_planner("mctx", 10, max_depth=1, backend=backend)
    after = shallow.plan(model, observation, kept=kept)
    assert not model.steps  # both children of each root were known
    added = after.tree.node_visits[:, : kept.num_nodes] - kept.node_visits
    assert added[:, 0].tolist() == [10] * 4
    assert added.gather(1, kept.children_index[:, 0]).sum(dim=-1).tolist() == [10] * 4
    assert added.sum(dim=-1).tolist() == [20] * 4


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    RANDOM_WORLDS,
    st.sampled_from(MODES),
    st.sampled_from(BACKENDS),
    st.integers(1, 24),
    st.integers(1, 24),
    st.data(),
)
def test_any_kept_tree_is_consistent_and_grows_consistently(
    world, mode, backend, first, then, data
):
    tables = random_tables(**world)
    rows = torch.arange(world["num_tables"])
    tree = quiet_planner(mode, first, backend=backend).plan(tables, rows).tree
    choice = st.integers(0, world["num_actions"] - 1)
    action = torch.tensor([data.draw(choice) for _ in rows])
    kept = keep_subtree(tree, action)
    if bool((kept.node_visits[:, 0] > 0).all()):
        assert_consistent(kept)
    # The new roots are those of other tables: nothing agrees with what was kept.
    output = quiet_planner(mode, then, backend=backend).plan(tables, rows.flip(0), kept=kept)
    assert_consistent(output.tree)
    visits = output.tree.node_visits[:, 0]
    assert bool((visits >= 1 + then).all())
    assert bool((visits <= kept.node_visits[:, 0].clamp_min(1) + then).all())
