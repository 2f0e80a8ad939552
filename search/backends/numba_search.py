"""The compiled search on the CPU: memory for the kernels, and model steps between them.

Trees are walked in `search.backends.numba_kernels`; rules are encoded in `search.backends.rules`.
"""

import math
import os
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, NoReturn

import numba
import numpy as np
import torch
from torch import Tensor

from search.backends import numba_kernels as kernels
from search.backends.memory import Array, Memory, Shapes, acquire_buffers, release_buffers
from search.backends.numba_exchange import (
    KeptEmbeddings,
    Outputs,
    Pool,
    PooledEmbeddings,
    as_tensor,
)
from search.backends.rules import HALVING, Rules
from search.model import (
    Embedding,
    PlanningModel,
    RootOutput,
    StepOutput,
    validate_root,
    validate_step,
)
from search.selection import raise_no_score
from search.tree import Tree, tree_dtype

_PARALLEL_WORK = 2048
"""Trees times actions from which more threads are faster than one."""

_DTYPES: dict[torch.dtype, type[np.floating]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}
_STORED = ("children_prior_logits", "valid_actions")
_SEARCHED = ("blocks", "paths", "rows", "scratch", *_STORED)
_NODE_FIELDS = ("node_visits", "raw_values", "node_values", "parents", "action_from_parent")
_EDGE_FIELDS = (
    "children_index",
    "children_visits",
    "children_rewards",
    "children_discounts",
    "children_values",
)
_EXPORTED = ("blocks", *_STORED, *_NODE_FIELDS, *_EDGE_FIELDS, "terminal")
_PUBLIC = (*_NODE_FIELDS, *_EDGE_FIELDS, *_STORED, "terminal")


class _Size(NamedTuple):
    """All that the memory of a search depends on."""

    num_trees: int
    num_nodes: int
    num_actions: int
    width: int
    depth: int
    dtype: type[np.floating]
    embedding: tuple[tuple[str, torch.Size, torch.dtype], ...]


def search_on_cpu(
    model: PlanningModel,
    root: RootOutput,
    rules: Rules,
    *,
    num_simulations: int,
    max_depth: int | None,
    leaves_per_step: int,
    kept: Tree | None,
    generator: torch.Generator | None,
) -> Tree:
    """Runs a search whose rules have a compiled form; arguments as in `search.mcts.run_mcts`.

    Raises:
        ValueError: If an output breaks the contract of `search.model`, or a score or a return made
            of such numbers is not finite.
    """
    num_trees, num_actions = root.prior_logits.shape
    num_nodes = num_simulations + (1 if kept is None else kept.num_nodes)
    depth = num_nodes if max_depth is None else min(max_depth, num_nodes)
    size = _Size(
        num_trees=num_trees,
        num_nodes=num_nodes,
        num_actions=num_actions,
        width=leaves_per_step,
        depth=depth,
        dtype=_DTYPES[tree_dtype(root)],
        embedding=tuple(
            (name, leaf.shape[1:], leaf.dtype) for name, leaf in root.embedding.items()
        ),
    )
    memory = acquire_buffers(size, partial(_shapes, size))
    try:
        memory.arrays["paths"][:, :, 0] = 0  # no last walk to fetch yet
        num_rows = num_nodes * num_trees
        pools = {
            name: Pool(memory.arrays[f"embedding {name}"], leaf, num_rows)
            for name, leaf in root.embedding.items()
        }
        if kept is not None:
            _load(kept, memory, pools, rules)
        else:
            for name, pool in pools.items():
                pool.write_first(root.embedding[name])
        rule_arrays = _encode(rules, memory, kept, max_depth=depth)
        _grow(
            model,
            root,
            memory=memory,
            pools=pools,
            rule_arrays=rule_arrays,
            num_simulations=num_simulations,
            is_fresh=kept is None,
            generator=generator,
        )
        export = kernels.export_parallel if _uses_threads(memory) else kernels.export_serial
        export(*(memory.arrays[name] for name in _EXPORTED))
        public = {name: as_tensor(memory.arrays[name]) for name in _PUBLIC}
        public["valid_actions"] = public["valid_actions"].view(torch.bool)
        return Tree(
            **public,
            embeddings={name: pool.trees(num_trees) for name, pool in pools.items()},
        )
    finally:
        release_buffers(size, memory)


def _grow(
    model: PlanningModel,
    root: RootOutput,
    *,
    memory: Memory,
    pools: Mapping[str, Pool],
    rule_arrays: list[Array],
    num_simulations: int,
    is_fresh: bool,
    generator: torch.Generator | None,
) -> None:
    """Runs all simulations: the kernel and the model in turn."""
    searched = [memory.arrays[name] for name in _SEARCHED] + rule_arrays
    num_trees, num_nodes, num_actions = memory.arrays["children_index"].shape
    width = memory.arrays["rows"].shape[1]
    advance = kernels.advance_parallel if _uses_threads(memory) else kernels.advance_serial
    num_steps, full = -(-num_simulations // width), num_trees * width
    store = (KeptEmbeddings if num_trees * width == 1 else PooledEmbeddings)(pools, memory)
    # The model may hold on to the actions that it is given: each step has its own.
    actions = np.empty((num_steps + 1, num_trees * width), np.int64)
    action_rows = as_tensor(actions).unbind(0)
    outputs = Outputs(tree_dtype(root), num_actions)
    addresses = outputs.read_root(root)
    step: StepOutput | None = None
    embedding: Embedding = root.embedding
    previous = -1 if is_fresh else 0
    column = num_nodes - num_simulations
    for number in range(num_steps + 1):
        leaves = min(width, num_nodes - column)  # 0 at last, when only a back-up is left
        count = advance(
            *searched, *addresses, store.gather, store.scatter, actions, number,
            previous, column, leaves,
        )  # fmt: skip
        if count > 0:
            action = action_rows[number] if count == full else action_rows[number][:count]
            embedding = store.read(count)
            step = model.step(embedding, action, generator=generator)
            addresses = outputs.read(step, count, embedding)
            store.write(column, count, step.embedding)
        elif count == kernels.NOT_FINITE:
            _explain(root, step, embedding, num_actions=num_actions, gather=store.gather)
        elif count == kernels.NO_SCORE:
            row = int((memory.arrays["rows"][:, 0] == kernels.NO_SCORE).argmax())
            raise_no_score(tree_dtype(root), row=row)
        previous, column = leaves, column + leaves
    store.finish()


def _uses_threads(memory: Memory) -> bool:
    """Whether to use several threads, at most `NUMBA_NUM_THREADS`."""
    num_trees, _, num_actions = memory.arrays["children_index"].shape
    return num_trees > 1 and num_trees * num_actions >= _PARALLEL_WORK and _start_threads() > 1


@cache
def _start_threads() -> int:
    """Starts numba's threads if they have not started, and returns their number.

    Threads that spin while they wait cost a hundred times what they save as soon as another process
    uses the core. OpenMP reads the wait policy when it is loaded, which is here.
    """
    was_set = "OMP_WAIT_POLICY" in os.environ
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        number = numba.get_num_threads()
        # Where numba finds neither OpenMP nor TBB, two callers at a time would end the process.
        layer: str = numba.threading_layer()  # pyright: ignore[reportPrivateImportUsage]
        return 1 if layer == "workqueue" else number
    finally:
        if not was_set:
            del os.environ["OMP_WAIT_POLICY"]


def _explain(
    root: RootOutput,
    step: StepOutput | None,
    embedding: Embedding,
    *,
    num_actions: int,
    gather: Array,
) -> NoReturn:
    """Raises an error that names the number of the model's last outputs that is not finite."""
    if step is None:
        validate_root(root, num_actions)
    else:
        num_rows = step.value.shape[0]
        # The rows of a pool `[N, B]`: all nodes of the first column, then those of the second.
        rows = as_tensor(gather[:num_rows]) % root.value.shape[0]
        validate_step(step, num_actions, num_rows=num_rows, parent=embedding, rows=rows)
    dtype = tree_dtype(root)
    raise ValueError(
        f"StepOutput: found a number beyond the range of {dtype}; required numbers that the tree "
        "can hold, whose dtype is the root's. Return the outputs of root and step in one dtype."
    )


def _float(tensor: Tensor, dtype: np.dtype[np.generic]) -> Array:
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.float()
    # astype copies neither a right dtype nor a right layout; without a copy another layout would
    # have numba compile everything again.
    return np.ascontiguousarray(tensor.detach().numpy(), dtype)


def _shapes(size: _Size) -> Shapes:
    """All arrays of a search; embeddings as bytes, since numpy lacks some of torch's dtypes."""
    num_trees, num_actions, dtype = size.num_trees, size.num_actions, size.dtype
    nodes = (num_trees, size.num_nodes)
    edges = (*nodes, num_actions)
    floats = ("raw_values", "node_values")
    edge_floats = ("children_rewards", "children_discounts", "children_values")
    return {
        "blocks": ((*nodes, kernels.NODE_FIELDS + 4 * num_actions), dtype),
        "paths": ((num_trees, size.width, size.depth + 2), np.int32),
        "rows": ((num_trees, size.width), np.int32),
        "scratch": ((num_trees, num_actions), dtype),
        "gather": ((num_trees * size.width,), np.int64),
        "scatter": ((num_trees * size.width,), np.int64),
        "terminal": (nodes, np.bool_),
        "valid_actions": (edges, np.uint8),  # a bool is no number to numba
        "children_prior_logits": (edges, dtype),
        **{name: (nodes, dtype if name in floats else np.int64) for name in _NODE_FIELDS},
        **{name: (edges, dtype if name in edge_floats else np.int64) for name in _EDGE_FIELDS},
        **{
            f"embedding {name}": ((math.prod(nodes) * math.prod(shape) * kind.itemsize,), np.uint8)
            for name, shape, kind in size.embedding
        },
    }


def _load(kept: Tree, memory: Memory, pools: Mapping[str, Pool], rules: Rules) -> None:
    """Copies a kept tree into the memory of a search."""
    arrays = memory.arrays
    dtype = arrays["blocks"].dtype
    num_kept, num_actions = kept.num_nodes, kept.num_actions
    fields = ("valid_actions", *_NODE_FIELDS, *_EDGE_FIELDS, "terminal")
    fields_of_kept = [np.ascontiguousarray(getattr(kept, name).numpy()) for name in fields]
    priors = _float(torch.softmax(kept.children_prior_logits, dim=-1), dtype)
    decisions = rules.decisions(num_actions)
    load: Any = kernels.load  # pyright: ignore
    load(arrays["blocks"], priors, *fields_of_kept, decisions)
    arrays["children_prior_logits"][:, :num_kept] = kept.children_prior_logits.numpy()
    arrays["valid_actions"][:, :num_kept] = kept.valid_actions.numpy()
    for name, pool in pools.items():
        columns = kept.embeddings[name].transpose(0, 1)  # [K, B, ...]
        pool.write_first(columns.flatten(0, 1))


def _encode(rules: Rules, memory: Memory, kept: Tree | None, *, max_depth: int) -> list[Array]:
    """The rules as the arrays that `kernels.advance` takes after those of the trees."""
    num_trees, num_nodes, num_actions = memory.arrays["children_index"].shape
    dtype = memory.arrays["blocks"].dtype
    decisions = rules.decisions(num_actions)
    settings = np.array(
        [
            rules.root_rule,
            rules.rule,
            rules.transform,
            rules.option("rescale_values"),
            rules.option("use_mixed_value"),
            decisions,
            max_depth,
        ],
        np.int64,
    )
    limits = torch.finfo(torch.float32 if dtype == np.float32 else torch.float64)
    numbers = np.array(
        [
            rules.option("min_value"),
            rules.option("max_value"),
            max(rules.option("epsilon"), limits.tiny),
            rules.option("value_scale"),
            rules.option("maxvisit_init"),
            rules.value_delta_max,
            limits.min,
            limits.tiny,
            limits.tiny / limits.eps,
        ],
        dtype,
    )
    most_visits = num_nodes + 1
    if kept is not None:
        most_visits += int(kept.node_visits[:, Tree.ROOT].max())
    rates = puct_rates(rules.pb_c_init, rules.pb_c_base, most_visits, dtype)
    halving = rules.halving
    if rules.root_rule != HALVING or halving is None:
        nothing = np.zeros((num_trees, 1), dtype)
        return [settings, numbers, rates, nothing, nothing, np.zeros((num_trees, 1), np.int64)]
    gumbel = _float(halving.gumbel, dtype)
    kept_visits = (
        np.zeros_like(gumbel) if halving.kept_visits is None else _float(halving.kept_visits, dtype)
    )
    schedule = np.ascontiguousarray(halving.schedule.numpy())
    return [settings, numbers, rates, gumbel, kept_visits, schedule]


@lru_cache(maxsize=32)
def puct_rates(
    pb_c_init: float, pb_c_base: float, most_visits: int, dtype: np.dtype[np.generic]
) -> Array:
    """PUCT's weight of the prior by visits n, `sqrt(n) * (c1 + log((n + c2 + 1) / c2))`."""
    visits = as_tensor(np.arange(most_visits + 1, dtype=dtype))
    pb_c = pb_c_init + torch.log((visits + pb_c_base + 1.0) / pb_c_base)
    return (visits.sqrt() * pb_c).numpy()
