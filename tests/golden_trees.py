"""Trees that mctx 0.0.71 has grown, and the tables it grew them on: the file, read by numpy.

`tests/golden/make_mctx_trees.py` writes the file where mctx is installed; every test of equality
with mctx reads it, and needs neither mctx nor jax.

A case is a batch of T tables of S states, A actions and, where chance has a part, C outcomes. Kept
of a tree is what cannot be worked out from the rest: where each node hangs, how often it was
visited, what it is worth. Logits, values and rewards are whole multiples of `UNIT`, exact in
float32.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FILE = Path(__file__).parent / "golden" / "mctx_trees.npz"
UNIT = 1 / 1024
SCALED = ("prior_logits", "value", "reward", "chance_logits", "afterstate_value")
"""Tables kept as whole numbers of `UNIT`."""
TABLES = (*SCALED, "next_state", "valid_outcomes", "valid_roots")
TREES = ("parents", "action_from_parent", "node_visits", "node_values", "action_weights", "action")


@dataclass(frozen=True)
class GoldenCase:
    """One batch of tables, how it was searched, and the trees.

    Attributes:
        name: What the case is about.
        options: `policy` (muzero, gumbel or stochastic), `dtype`, `discount`, `qtransform` (a name
            and its keywords, or None), and under `planner` what mctx's policy and our planner call
            by the same names.
        tables: By the names of `TABLES`, those there are: `prior_logits` `[T, S, A]`, `value`
            `[T, S]`, `valid_roots` `[T, A]`; `next_state` and `reward` `[T, S, A]` or, with chance,
            `[T, S, A, C]`, and then `chance_logits` and `valid_outcomes` `[T, S, A, C]`,
            `afterstate_value` `[T, S, A]`.
        trees: By the names of `TREES`, what mctx returned: `[T, N]`, but `action_weights` `[T, A]`
            and `action` `[T]`.
    """

    name: str
    options: dict[str, Any]
    tables: dict[str, Array]
    trees: dict[str, Array]


def save_cases(cases: list[GoldenCase], path: Path = FILE) -> None:
    """Writes cases as one compressed file: an array a name, all cases' one after the other."""
    parts: dict[str, list[Array]] = {name: [] for name in (*TABLES, *TREES)}
    index: dict[str, Any] = {}
    for case in cases:
        shapes: dict[str, list[int]] = {}
        for name, array in (case.tables | case.trees).items():
            kept = np.rint(array / UNIT) if name in SCALED else array
            kept = kept if array.dtype.kind == "f" and name in TREES else kept.astype(np.int16)
            assert np.array_equal(kept * UNIT if name in SCALED else kept, array), name
            parts[name].append(kept.ravel())
            shapes[name] = list(array.shape)
        index[case.name] = {"options": case.options, "shapes": shapes}
    arrays = {name: np.concatenate(found) for name, found in parts.items()}
    arrays["index"] = np.array(json.dumps(index))
    save: Any = np.savez_compressed  # its keywords are the arrays' names
    save(path, **arrays)


def load_cases(path: Path = FILE) -> dict[str, GoldenCase]:
    """Reads all cases, by name."""
    with np.load(path, allow_pickle=False) as file:
        index: dict[str, Any] = json.loads(str(file["index"]))
        arrays = {name: file[name] for name in (*TABLES, *TREES)}
    cases: dict[str, GoldenCase] = {}
    starts = dict.fromkeys(arrays, 0)
    for case, entry in index.items():
        found: dict[str, Array] = {}
        for name, shape in entry["shapes"].items():
            start, starts[name] = starts[name], starts[name] + math.prod(shape)
            array = arrays[name][start : starts[name]].reshape(shape)
            if name in TREES and array.dtype.kind == "f":
                array = array.astype(entry["options"]["dtype"])
            found[name] = array * UNIT if name in SCALED else array
        tables = {name: found[name] for name in TABLES if name in found}
        trees = {name: found[name] for name in TREES}
        cases[case] = GoldenCase(case, entry["options"], tables, trees)
    return cases


def complete_trees(case: GoldenCase) -> dict[str, Array]:
    """All fields of the trees: what is kept of them, and what the tables say of each node and edge.

    Returns:
        By the names of `search.tree.Tree` `node_visits`, `raw_values`, `node_values`, `parents`,
        `action_from_parent` `[T, N]`, `children_index`, `children_visits`, `children_rewards`,
        `children_discounts`, `children_values` `[T, N, A]` (edges of actions, not of outcomes), and
        `is_decision` `[T, N]`.
    """
    tables, trees = case.tables, case.trees
    num_actions = tables["prior_logits"].shape[2]
    shape = trees["parents"].shape
    found: dict[str, Array] = {name: trees[name] for name in TREES[:4]}
    dtype = trees["node_values"].dtype
    for name in ("children_rewards", "children_discounts", "children_values"):
        found[name] = np.zeros((*shape, num_actions), dtype)
    found["children_index"] = np.full((*shape, num_actions), -1)
    found["children_visits"] = np.zeros((*shape, num_actions), int)
    found["raw_values"] = np.zeros(shape, dtype)
    found["is_decision"] = np.ones(shape, bool)
    has_chance = "chance_logits" in tables
    for table in range(shape[0]):
        # Of each node its state, and at a chance node the action that was taken there.
        states = {0: (0, -1)}
        found["raw_values"][table, 0] = tables["value"][table, 0]
        for node in range(1, shape[1]):
            parent = int(trees["parents"][table, node])
            action = int(trees["action_from_parent"][table, node])
            if parent < 0:
                continue
            state, taken = states[parent]
            if has_chance and taken < 0:
                states[node] = (state, action)
                found["is_decision"][table, node] = False
                raw, reward, discount = tables["afterstate_value"][table, state, action], 0.0, 1.0
            else:
                edge = (table, state, taken, action - num_actions) if has_chance else (
                    table, state, action
                )  # fmt: skip
                states[node] = (int(tables["next_state"][edge]), -1)
                raw, reward = tables["value"][table, states[node][0]], tables["reward"][edge]
                discount = case.options["discount"]
            found["raw_values"][table, node] = raw
            if action < num_actions:
                at = (table, parent, action)
                found["children_index"][at] = node
                found["children_visits"][at] = trees["node_visits"][table, node]
                found["children_rewards"][at] = reward
                found["children_discounts"][at] = discount
                found["children_values"][at] = trees["node_values"][table, node]
    return found
