"""Memory between searches: used again when nobody reads it, never before."""

import gc
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from search import GumbelMuZeroPlanner, MuZeroPlanner, Tree, release_memory
from search.backends import memory as memory_module
from search.backends.memory import Memory, acquire_buffers, release_buffers
from tests.pairwise import pairwise
from tests.search_cases import MODES, ROWS, assert_equal_trees, quiet_planner
from tests.search_reference import random_tables

SHAPES = {"a": ((3,), np.float32), "b": ((2, 2), np.int64)}
NAMES = [field.name for field in fields(Tree) if field.name != "embeddings"]
LEAVES = ["table", "state", "trace"]


@pytest.fixture(autouse=True)
def _no_free_memory():
    release_memory()
    yield
    release_memory()


def make_planner(num_simulations=12, **options):
    options = {"backend": "numba", "dirichlet_fraction": 0, "temperature": 0} | options
    return MuZeroPlanner(num_simulations, **options)


def plan(model, *, rows=4, num_simulations=12, **options):
    return make_planner(num_simulations, **options).plan(model, torch.arange(rows))


def addresses(tree):
    return {
        **{name: getattr(tree, name).data_ptr() for name in NAMES},
        **{name: leaf.data_ptr() for name, leaf in tree.embeddings.items()},
    }


def tensors(tree):
    return {**{name: getattr(tree, name) for name in NAMES}, **tree.embeddings}


def free_memories():
    return [kept for _, kept in memory_module._free.memories.values()]


def assert_same(found, expected):
    assert_equal_trees(found, expected, tolerance=1e-6)


# Reuse.


def test_memory_is_used_again_once_the_tree_is_gone():
    model = random_tables(1)
    output = plan(model)
    before = addresses(output.tree)
    del output
    assert addresses(plan(model).tree) == before


def test_memory_is_used_again_when_values_were_kept_apart():
    model = random_tables(1)
    output = plan(model)
    kept, before = (output.action, output.action_weights, output.value), addresses(output.tree)
    copies = [tensor.clone() for tensor in kept]
    del output
    other = plan(random_tables(2))
    assert addresses(other.tree) == before
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_memory_of_other_shapes_stays_for_its_own():
    model = random_tables(1)
    first, second = addresses(plan(model).tree), addresses(plan(model, num_simulations=20).tree)
    for _ in range(3):
        assert addresses(plan(model).tree) == first
        assert addresses(plan(model, num_simulations=20).tree) == second


HOLDS = {
    "output": lambda output: output,
    "tree": lambda output: output.tree,
    "summary": lambda output: output.tree.summary(),
    "embeddings": lambda output: output.tree.embeddings,
    **{name: lambda output, name=name: getattr(output.tree, name) for name in NAMES},
    **{leaf: lambda output, leaf=leaf: output.tree.embeddings[leaf] for leaf in LEAVES},
    "view": lambda output: output.tree.children_visits[-1, 0, 2:],
    "view_of_view": lambda output: output.tree.node_values.T[3][:2],
    "number": lambda output: output.tree.node_values[-1, 0],
    "other_dtype": lambda output: output.tree.node_values.view(torch.int64),
    "detached": lambda output: output.tree.raw_values.detach(),
    "numpy": lambda output: output.tree.node_values.numpy(),
    "numpy_view": lambda output: output.tree.children_index.numpy()[0, :, 1],
    "numpy_of_leaf": lambda output: output.tree.embeddings["trace"].numpy(),
    "memoryview": lambda output: memoryview(output.tree.parents.numpy()),
    "storage": lambda output: output.tree.terminal.untyped_storage(),
    "dlpack": lambda output: np.from_dlpack(output.tree.children_rewards),
    "closure": lambda output: lambda: output.tree.valid_actions,
    "cycle": lambda output: (lambda cell: cell.append(cell) or cell)([output.tree.parents]),
}


@pytest.mark.parametrize("held", HOLDS)
@pytest.mark.parametrize("rows", [1, 4])
def test_memory_is_not_used_again_while_somebody_holds_any_of_it(held, rows):
    model = random_tables(1)
    output = plan(model, rows=rows)
    before = addresses(output.tree)
    copies = {name: tensor.clone() for name, tensor in tensors(output.tree).items()}
    holder = HOLDS[held](output)
    del output
    others = [plan(random_tables(2 + i), rows=rows).tree for i in range(3)]
    for other in others:
        assert not set(addresses(other).values()) & set(before.values())
    if held in copies:
        assert torch.equal(holder, copies[held])
    del holder, others, other
    if held == "cycle":
        gc.collect()
    again = {
        address for _ in range(8) for address in addresses(plan(model, rows=rows).tree).values()
    }
    assert again & set(before.values())


@pytest.mark.parametrize("rows", [1, 4])
def test_held_tree_stays_as_it_is_through_many_searches(rows):
    model = random_tables(1)
    held = plan(model, rows=rows).tree
    copies = {name: tensor.clone() for name, tensor in tensors(held).items()}
    for i in range(12):
        other = random_tables(10 + i)
        plan(other, rows=rows)
        plan(other, rows=rows, num_simulations=12 + i % 3)
        plan(other, rows=1 + i % 4, leaves_per_step=1 + i % 5)
        GumbelMuZeroPlanner(12, backend="numba").plan(other, torch.arange(rows))
        MuZeroPlanner(12, backend="numba", mode="efficientzero").plan(other, torch.arange(rows))
    for name, tensor in tensors(held).items():
        assert torch.equal(tensor, copies[name]), name


def test_used_memory_leaves_no_trace():
    model = random_tables(3, terminal=0.2, dead=0.2, invalid=0.3)
    expected = {
        (rows, leaves): tensors(
            plan(model, rows=rows, leaves_per_step=leaves, backend="torch").tree
        )
        for rows in (1, 4)
        for leaves in (1, 5)
    }
    for seed in range(6):
        for (rows, leaves), wanted in expected.items():
            plan(random_tables(20 + seed), rows=rows, leaves_per_step=leaves)
            found = plan(model, rows=rows, leaves_per_step=leaves).tree
            for name in NAMES:
                torch.testing.assert_close(tensors(found)[name], wanted[name], msg=name)


def test_tree_of_an_iterating_reader_is_safe():
    trees = [plan(random_tables(seed)).tree for seed in range(12)]
    for seed, tree in enumerate(trees):
        assert_same(tree, plan(random_tables(seed), backend="torch").tree)


def test_kept_tree_is_a_copy():
    from search import keep_subtree

    model = random_tables(1)
    output = plan(model)
    before = addresses(output.tree)
    kept = keep_subtree(output.tree, output.action)
    copies = {name: tensor.clone() for name, tensor in tensors(kept).items()}
    del output
    assert addresses(plan(random_tables(2)).tree) == before
    for name, tensor in tensors(kept).items():
        assert torch.equal(tensor, copies[name]), name


# Searches inside searches, and beside them.


class Wrapped:
    """A table model, to be changed by a subclass."""

    def __init__(self, outer):
        self.outer, self.num_actions = outer, outer.num_actions

    def root(self, observation, *, generator=None):
        return self.outer.root(observation)

    def step(self, embedding, action, *, generator=None):
        return self.outer.step(embedding, action)


class PlanningInside(Wrapped):
    """Every step runs a search of its own, of the same shapes."""

    def __init__(self, outer, inner):
        super().__init__(outer)
        self.inner, self.held = inner, []

    def step(self, embedding, action, *, generator=None):
        self.held.append(plan(self.inner, rows=action.shape[0]).tree)
        plan(random_tables(30), rows=action.shape[0])
        return super().step(embedding, action)


@pytest.mark.parametrize("rows", [1, 4])
def test_search_inside_a_step_does_not_share_memory(rows):
    outer, inner = random_tables(4), random_tables(5)
    model = PlanningInside(outer, inner)
    found = plan(model, rows=rows).tree
    assert_same(found, plan(outer, rows=rows, backend="torch").tree)
    alone = plan(inner, rows=rows, backend="torch").tree
    assert len(model.held) == 12
    for tree in model.held:
        assert_same(tree, alone)


def test_nested_search_uses_memory_again():
    model = PlanningInside(random_tables(4), random_tables(5))
    model.held = type("Forgetting", (), {"append": lambda self, tree: None})()
    plan(model)
    plan(model)
    assert len(free_memories()) == 2


def test_threads_search_beside_each_other():
    models = [random_tables(seed) for seed in range(4)]
    expected = [plan(model, backend="torch").tree for model in models]
    found, places, failures = {}, {}, []
    barrier = threading.Barrier(4)

    def work(number):
        try:
            barrier.wait()
            seen = set()
            for _ in range(20):
                tree = plan(models[number]).tree
                seen |= set(addresses(tree).values())
                assert_same(tree, expected[number])
            found[number] = tree
            places[number] = seen
            barrier.wait()  # all memories are alive while their addresses are compared
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for a in range(4):
        assert_same(found[a], expected[a])
        for b in range(a):
            assert not places[a] & places[b]


def test_tree_outlives_the_thread_that_made_it():
    result = []
    thread = threading.Thread(target=lambda: result.append(plan(random_tables(1)).tree))
    thread.start()
    thread.join()
    plan(random_tables(2))
    assert_same(result[0], plan(random_tables(1), backend="torch").tree)


def test_release_is_of_this_thread():
    plan(random_tables(1))
    thread = threading.Thread(target=release_memory)
    thread.start()
    thread.join()
    assert len(free_memories()) == 1


# Giving back.


def test_release_gives_back_and_harms_no_tree():
    model = random_tables(1)
    tree = plan(model).tree
    copies = {name: tensor.clone() for name, tensor in tensors(tree).items()}
    assert len(free_memories()) == 1
    release_memory()
    assert free_memories() == []
    other = plan(random_tables(2)).tree
    assert not set(addresses(other).values()) & set(addresses(tree).values())
    for name, tensor in tensors(tree).items():
        assert torch.equal(tensor, copies[name]), name


def test_release_within_a_search_is_harmless():
    class Releasing(Wrapped):
        def step(self, embedding, action, *, generator=None):
            release_memory()
            return self.outer.step(embedding, action)

    model = random_tables(6)
    found = plan(Releasing(model)).tree
    assert_same(found, plan(model, backend="torch").tree)


def test_what_is_kept_is_bounded_in_number():
    model = random_tables(1)
    for num_simulations in range(1, 31):
        plan(model, num_simulations=num_simulations)
    assert len(free_memories()) == memory_module._RETAINED_NUMBER
    sizes = [kept.arrays["node_visits"].shape[1] for kept in free_memories()]
    assert sizes == list(range(24, 32))


def test_what_is_kept_is_bounded_in_bytes(monkeypatch):
    model = random_tables(1)
    sizes = {}
    for budget in (10, 9):
        release_memory()
        plan(model, num_simulations=budget)
        sizes[budget] = free_memories()[0].num_bytes
    release_memory()
    monkeypatch.setattr(memory_module, "_RETAINED_BYTES", sum(sizes.values()))

    def kept_budgets():
        return [memory.arrays["node_visits"].shape[1] - 1 for memory in free_memories()]

    for budget in (12, 11, 10, 9, 8):
        plan(model, num_simulations=budget)
    assert kept_budgets() == [10, 9, 8]
    plan(model, num_simulations=500)
    assert kept_budgets() == [9, 8, 500]
    plan(model, num_simulations=8)
    assert kept_budgets() == [8]


def test_size_counts_all_arrays():
    assert Memory(SHAPES).num_bytes == 3 * 4 + 4 * 8


def test_each_array_is_watched():
    memory = Memory(SHAPES)
    assert not memory.is_read()
    for name in SHAPES:
        reader = memory.arrays[name]
        assert memory.is_read()
        reader = reader[:1]
        assert memory.is_read()
        reader = torch.from_numpy(memory.arrays[name])[:1]
        assert memory.is_read()
        del reader
        assert not memory.is_read()


def test_least_recently_used_memory_is_borrowed_first_and_held_ones_are_passed_over():
    first, second = Memory(SHAPES), Memory(SHAPES)
    release_buffers("key", first)
    release_buffers("key", second)
    reader = first.arrays["b"][0]
    assert acquire_buffers("key", lambda: SHAPES) is second
    fresh = acquire_buffers("key", lambda: SHAPES)
    assert fresh is not first
    assert fresh is not second
    del reader
    assert acquire_buffers("key", lambda: SHAPES) is first
    assert free_memories() == []


def test_memory_of_another_key_is_not_borrowed():
    memory = Memory(SHAPES)
    release_buffers("key", memory)
    assert acquire_buffers("other", lambda: SHAPES) is not memory


# Searches that fail.


class Failing(Wrapped):
    def __init__(self, outer, fault):
        super().__init__(outer)
        self.fault, self.calls = fault, 0

    def step(self, embedding, action, *, generator=None):
        self.calls += 1
        output = self.outer.step(embedding, action)
        return output if self.calls < 4 else self.fault(output)


def raise_error(output):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda o: replace(o, value=o.value * float("nan")), ValueError),
        (lambda o: replace(o, reward=o.reward[:, None]), ValueError),
        (lambda o: replace(o, embedding={}), ValueError),
        (raise_error, RuntimeError),
    ],
)
def test_search_that_fails_gives_its_memory_back(fault, error, rows):
    model = random_tables(7)
    before = addresses(plan(model, rows=rows).tree)
    with pytest.raises(error):
        plan(Failing(model, fault), rows=rows)
    assert len(free_memories()) == 1
    found = plan(model, rows=rows).tree
    assert addresses(found) == before
    assert_same(found, plan(model, rows=rows, backend="torch").tree)


def test_memory_is_not_used_again_while_a_failed_search_is_looked_at():
    model = random_tables(7)
    try:
        plan(Failing(model, raise_error))
    except RuntimeError as caught:
        error = caught
    (left,) = free_memories()
    assert left.is_read()
    plan(model)
    assert len(free_memories()) == 2
    error.__traceback__ = None
    del error
    assert not left.is_read()


# Outputs of every make.


def each_output(change):
    class Changed(Wrapped):
        def root(self, observation, *, generator=None):
            return change(self.outer.root(observation))

        def step(self, embedding, action, *, generator=None):
            assert action.dtype == torch.int64
            return change(self.outer.step({k: embedding[k] for k in LEAVES}, action))

    return Changed


def convert(**dtypes):
    return lambda output: replace(
        output, **{name: getattr(output, name).to(dtype) for name, dtype in dtypes.items()}
    )


def convert_steps(**dtypes):
    change = convert(**dtypes)
    return lambda output: change(output) if hasattr(output, "reward") else output


def strided(output):
    def spread(tensor):
        wide = torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)
        wide[..., 1] = tensor
        return wide[..., 1]

    names = [field.name for field in fields(output) if field.name != "embedding"]
    embedding = {name: spread(leaf) for name, leaf in output.embedding.items()}
    changed = {name: spread(getattr(output, name)) for name in names}
    return replace(output, **changed, embedding=embedding)


def transposed(output):
    return replace(
        output,
        prior_logits=output.prior_logits.T.contiguous().T,
        valid_actions=output.valid_actions.T.contiguous().T,
    )


def expanded(output):
    rows, actions = output.prior_logits.shape
    changed = {
        "prior_logits": torch.linspace(0, 1, actions, dtype=torch.float64).expand(rows, actions),
        "valid_actions": torch.ones((), dtype=torch.bool).expand(rows, actions),
        "embedding": {**output.embedding, "constant": torch.ones(1, 3).expand(rows, 3)},
    }
    if hasattr(output, "reward"):
        changed["discount"] = torch.tensor(0.9, dtype=torch.float64).expand(rows)
    return replace(output, **changed)


def parameters(output):
    names = [f.name for f in fields(output) if f.name not in ("embedding", "valid_actions")]
    with torch.inference_mode(False):
        changed = {name: torch.nn.Parameter(getattr(output, name).clone()) for name in names}
        hidden = torch.nn.Parameter(output.value.clone()[:, None])
    return replace(output, **changed, embedding={**output.embedding, "hidden": hidden})


def leaf_of(make):
    return lambda output: replace(
        output, embedding={**output.embedding, "extra": make(output.embedding["trace"])}
    )


CHANGES = {
    "wide_logits": convert(value=torch.float32),
    "wide_values": convert(prior_logits=torch.float32),
    "float32": convert(prior_logits=torch.float32, value=torch.float32),
    "half": convert(prior_logits=torch.float16, value=torch.float16),
    "bfloat16": convert(prior_logits=torch.bfloat16, value=torch.bfloat16),
    "half_rewards": convert_steps(reward=torch.float16, discount=torch.bfloat16),
    "wider_steps": lambda output: (
        output
        if hasattr(output, "reward")
        else convert(prior_logits=torch.float32, value=torch.float32)(output)
    ),
    "narrower_steps": convert_steps(prior_logits=torch.float16, value=torch.float32),
    "strided": strided,
    "transposed": transposed,
    "expanded": expanded,
    "parameters": parameters,
    "bool_leaf": leaf_of(lambda trace: trace > 1),
    "int8_leaf": leaf_of(lambda trace: trace.to(torch.int8)),
    "uint8_leaf": leaf_of(lambda trace: trace.clamp_min(0).to(torch.uint8)),
    "bfloat16_leaf": leaf_of(lambda trace: trace.to(torch.bfloat16)),
    "half_leaf": leaf_of(lambda trace: trace[:, :1].half()),
    "complex_leaf": leaf_of(lambda trace: torch.complex(trace.float(), -trace.float())),
    "complex128_leaf": leaf_of(lambda trace: trace[:, 0].to(torch.complex128)),
    "scalar_leaf": leaf_of(lambda trace: trace[:, 1]),
    "deep_leaf": leaf_of(lambda trace: trace[:, None, :, None].expand(-1, 2, 3, 5)),
    "empty_leaf": leaf_of(lambda trace: trace[:, :0]),
    "empty_deep_leaf": leaf_of(lambda trace: torch.zeros(trace.shape[0], 2, 0, 3)),
    "no_leaf": None,
}


class Remembering(Wrapped):
    def root(self, observation, *, generator=None):
        return replace(self.outer.root(observation), embedding={})

    def step(self, embedding, action, *, generator=None):
        assert embedding == {}
        zeros = torch.zeros_like(action)
        known = {"table": zeros, "state": zeros, "trace": torch.zeros(len(action), 3).int()}
        return replace(self.outer.step(known, action), embedding={})


@pairwise(change=CHANGES, rows=[1, 4], leaves=[1, 4])
def test_outputs_of_every_make_are_read_as_torch_reads_them(change, rows, leaves):
    kind = Remembering if CHANGES[change] is None else each_output(CHANGES[change])
    trees = [
        plan(kind(random_tables(8)), rows=rows, leaves_per_step=leaves, backend=backend).tree
        for backend in ("numba", "torch")
    ]
    assert_same(*trees)
    again = plan(kind(random_tables(8)), rows=rows, leaves_per_step=leaves).tree
    assert_same(again, trees[1])


@pytest.mark.parametrize("rows", [1, 4])
def test_same_tensors_may_be_returned_every_time(rows):
    class Constant(Wrapped):
        def step(self, embedding, action, *, generator=None):
            if len(action) not in outputs:
                leaves = {name: leaf.clone() for name, leaf in embedding.items()}
                outputs[len(action)] = super().step(leaves, action)
            return outputs[len(action)]

    trees = []
    for backend in ("numba", "torch"):
        outputs = {}
        trees.append(plan(Constant(random_tables(9)), rows=rows, backend=backend).tree)
    assert_same(*trees)


def test_model_may_keep_what_it_is_given():
    class Recording(Wrapped):
        def __init__(self, outer):
            super().__init__(outer)
            self.given, self.copies = [], []

        def step(self, embedding, action, *, generator=None):
            self.given.append({**embedding, "action": action})
            self.copies.append({k: v.clone() for k, v in self.given[-1].items()})
            return self.outer.step(embedding, action)

    for rows in (1, 4):
        model = Recording(random_tables(10))
        for _ in range(3):
            plan(model, rows=rows)
        for given, copy in zip(model.given, model.copies, strict=True):
            for name, tensor in given.items():
                assert torch.equal(tensor, copy[name]), name


@pytest.mark.parametrize("modes", [MODES, MODES[::-1]])
def test_noise_of_a_planner_is_not_kept_with_the_memory(modes):
    model = random_tables(11)
    for mode in modes * 2:
        found, expected = (
            quiet_planner(mode, 12, backend=backend).plan(model, ROWS).tree
            for backend in ("numba", "torch")
        )
        assert_same(found, expected)
        assert len(free_memories()) == 1
        del found
