# pyright: basic
# (triton, and with it the kernels, has no types where it is not installed.)
"""The compiled search on CUDA: a fixed sequence of kernels and calls of the model.

Nothing returns to the host between the first launch and the last, so the device never waits, and
all of it can be captured in a CUDA graph (run it once before, so that all is compiled). For that
every step gives the model B * W rows, also where a walk ended at a known node: such outputs are
discarded. A model that stores every row it steps sets an attribute `append_only = True`; it gets
only the rows that need it, at the price of one host synchronization a step.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor

from search.backends import triton_kernels as kernels
from search.backends.rules import HALVING, Rules
from search.model import PlanningModel, RootOutput, StepOutput, check_form, to_list
from search.selection import raise_no_score
from search.tree import Tree, allocate_tree

_LANES_PER_WARP = 256
"""Actions a warp takes before a tree gets another one; up to eight."""


def search_on_cuda(
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

    It may be captured in a CUDA graph. A replay checks nothing: where the model's numbers may not
    be finite, check that the tree's `raw_values` are.

    Raises:
        ValueError: If an output breaks the contract of `search.model`, or a score or a return made
            of such numbers is not finite. Shapes and dtypes are checked at each step, numbers once
            at the end.
    """
    with torch.cuda.device_of(root.value):
        tree = allocate_tree(replace(root, embedding={}), num_simulations, kept=kept)
        num_kept = tree.num_nodes - num_simulations
        faults = _find_root_faults(tree)
        pools = {
            name: _Pool(leaf, tree.num_nodes, None if kept is None else kept.embeddings[name])
            for name, leaf in root.embedding.items()
        }
        launch = _Launch(tree, rules, faults, num_kept=num_kept, max_depth=max_depth)
        _grow(
            model,
            root,
            launch=launch,
            pools=pools,
            first=num_kept,
            width=leaves_per_step,
            generator=generator,
        )
        if not (faults.is_cuda and torch.cuda.is_current_stream_capturing()):
            _require_finite(tree, faults, num_kept=num_kept)
        embeddings = {name: pool.read_tree() for name, pool in pools.items()}
        return replace(tree, embeddings=embeddings)


def _grow(
    model: PlanningModel,
    root: RootOutput,
    *,
    launch: "_Launch",
    pools: dict[str, "_Pool"],
    first: int,
    width: int,
    generator: torch.Generator | None,
) -> None:
    """Runs all simulations: the kernel and the model in turn."""
    num_trees, num_nodes, num_actions = launch.tree.children_index.shape
    leaves = root.value.new_empty((width, num_trees), dtype=torch.int64)
    compact = bool(getattr(model, "append_only", False))
    outputs = _as_outputs(root)  # never read before the first step
    previous = 0
    while True:
        leaves_now = min(width, num_nodes - first)
        # The model may hold on to the actions that it is given: each step has its own.
        gather, action = (leaves.new_empty(leaves_now * num_trees) for _ in range(2))
        launch(outputs, leaves, gather, action, previous=previous, first=first, width=leaves_now)
        if leaves_now == 0:  # the last launch only backs up
            return
        rows = _rows_to_expand(leaves[:leaves_now], first) if compact else None
        if rows is not None:
            gather, action = gather[rows], action[rows]
        if len(action) > 0:
            embedding = {name: pool.read(gather) for name, pool in pools.items()}
            step = model.step(embedding, action, generator=generator)
            check_form(step, num_actions, num_rows=len(action), parent=embedding)
            _require_device(step, root.value.device)
            outputs = _as_outputs(step)
            if rows is not None:
                outputs = _spread(outputs, rows, leaves_now * num_trees)
            for name, pool in pools.items():
                pool.write(first, step.embedding[name], rows)
        previous, first = leaves_now, first + leaves_now


def _rows_to_expand(leaves: Tensor, first: int) -> Tensor:
    """Rows whose walk found a new leaf, tree by tree: `[W, B]` columns to `[M]` int64."""
    width, num_trees = leaves.shape
    columns = torch.arange(first, first + width, device=leaves.device)
    # Host synchronization: how many there are is known to the trees alone.
    tree, walk = (leaves == columns.unsqueeze(-1)).T.nonzero(as_tuple=True)
    return walk * num_trees + tree


def _spread(outputs: kernels.Outputs, rows: Tensor, num_rows: int) -> kernels.Outputs:
    """The outputs of some rows, each in its place among all; the rest is never read."""
    return kernels.Outputs(
        *(
            leaf.new_zeros((num_rows, *leaf.shape[1:])).index_copy_(0, rows, leaf)
            for leaf in outputs
        )
    )


def _as_outputs(output: RootOutput | StepOutput) -> kernels.Outputs:
    """The tensors that the kernel reads, contiguous, masks as bytes."""
    is_step = isinstance(output, StepOutput)
    return kernels.Outputs(
        output.prior_logits.contiguous(),
        output.value.contiguous(),
        output.valid_actions.contiguous().view(torch.uint8),
        output.reward.contiguous() if is_step else output.value,
        output.discount.contiguous() if is_step else output.value,
    )


def _require_device(step: StepOutput, device: torch.device) -> None:
    """Checks the device of the model's outputs: an address elsewhere would end the process.

    Raises:
        ValueError: Naming the field, what was found, what is required and the remedy.
    """
    for field in ("prior_logits", "value", "valid_actions", "reward", "discount"):
        tensor = getattr(step, field)
        if tensor.device != device:
            raise ValueError(
                f"StepOutput.{field}: found a tensor on {tensor.device}; required the root's "
                f"device, {device}. Return the outputs of root and step on one device."
            )


class _Launch:
    """The kernel with all arguments that stay the same throughout a search."""

    def __init__(
        self, tree: Tree, rules: Rules, faults: Tensor, *, num_kept: int, max_depth: int | None
    ) -> None:
        num_trees, num_nodes, num_actions = tree.children_index.shape
        self.tree = tree
        self.pointers = _point_to(tree, num_kept)
        self.halving = _encode_halving(tree, rules)
        self.numbers = _encode_numbers(rules, tree.node_values.dtype, tree.node_values.device)
        self.faults = faults
        decisions = rules.decisions(num_actions)
        self.sizes = (
            num_trees,
            num_nodes,
            num_actions,
            decisions,
            num_nodes if max_depth is None else min(max_depth, num_nodes),
            self.halving.schedule.shape[-1],
        )
        block = triton.next_power_of_2(num_actions)
        self.options: dict[str, Any] = {
            "ROOT_RULE": rules.root_rule,
            "TRANSFORM": rules.transform,
            "RESCALE": bool(rules.option("rescale_values")),
            "USE_MIXED": bool(rules.option("use_mixed_value")),
            "HAS_OUTCOMES": decisions < num_actions,
            "BLOCK": block,
            "num_warps": max(1, min(8, block // _LANES_PER_WARP)),
            "num_stages": 1,  # loads must stay behind the stores before them
            "enable_fp_fusion": False,  # products are rounded as in the torch form
        }

    def __call__(
        self,
        outputs: kernels.Outputs,
        leaves: Tensor,
        gather: Tensor,
        action: Tensor,
        *,
        previous: int,
        first: int,
        width: int,
    ) -> None:
        # triton's decorator, unknown where it is not installed, makes the function subscriptable.
        kernels.advance[(self.sizes[0],)](  # pyright: ignore[reportIndexIssue]
            self.pointers,
            outputs,
            self.halving,
            self.numbers,
            self.faults,
            leaves,
            gather,
            action,
            *self.sizes,
            previous,
            first,
            width,
            **self.options,
        )


def _point_to(tree: Tree, num_kept: int) -> kernels.Trees:
    """The tree's tensors for the kernel, with priors of its first `num_kept` columns."""
    logits, valid = tree.children_prior_logits[:, :num_kept], tree.valid_actions[:, :num_kept]
    priors = torch.empty_like(tree.children_prior_logits)
    priors[:, :num_kept] = torch.softmax(logits, dim=-1).masked_fill(~valid, -1.0)
    own = {
        "pending": torch.zeros_like(tree.node_visits, dtype=torch.int32),
        "priors": priors,
        "terminal": tree.terminal.view(torch.uint8),
        "valid_actions": tree.valid_actions.view(torch.uint8),
    }
    names = kernels.Trees._fields
    return kernels.Trees(*(own[name] if name in own else getattr(tree, name) for name in names))


def _encode_halving(tree: Tree, rules: Rules) -> kernels.Halving:
    if rules.root_rule != HALVING or rules.halving is None:
        return kernels.Halving(tree.node_values, tree.node_visits, tree.node_visits)
    gumbel = rules.halving.gumbel.to(tree.node_values).contiguous()
    kept = rules.halving.kept_visits
    kept = torch.zeros_like(gumbel, dtype=torch.int64) if kept is None else kept.contiguous()
    return kernels.Halving(gumbel, kept, rules.halving.schedule.contiguous())


def _encode_numbers(rules: Rules, dtype: torch.dtype, device: torch.device) -> Tensor:
    limits = torch.finfo(dtype)
    numbers = kernels.Numbers(
        init=rules.pb_c_init,
        base=rules.pb_c_base,
        low=rules.option("min_value"),
        high=rules.option("max_value"),
        epsilon=max(rules.option("epsilon"), limits.tiny),
        scale=rules.option("value_scale"),
        offset=rules.option("maxvisit_init"),
        delta=rules.value_delta_max,
        lowest=limits.min,
        tiny=limits.tiny,
    )
    return _copy_to_device(tuple(numbers), dtype, device)


@lru_cache(maxsize=64)
def _copy_to_device(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept: a copy from the host waits for it, and cannot be captured in a CUDA graph. As arguments
    # of the kernel floats would be rounded to float32, as constants each would compile it anew.
    return torch.tensor(numbers, dtype=dtype, device=device)


class _Pool:
    """One leaf of every node's embedding: `[N * B, ...]`, column by column, in each tree by tree.

    So all new leaves of a step are contiguous, in the order of the model's rows. A row keeps the
    memory format of the model's outputs (such as channels last), which saves the model from copying
    its inputs.
    """

    def __init__(self, leaf: Tensor, num_nodes: int, kept: Tensor | None) -> None:
        inner = range(1, leaf.ndim)
        self.order = [0, *sorted(inner, key=lambda dim: leaf.stride(dim), reverse=True)]
        self.inverse = [self.order.index(dim) for dim in range(leaf.ndim)]
        self.num_trees = leaf.shape[0]
        root = leaf.permute(self.order)
        self.rows = root.new_empty((num_nodes * self.num_trees, *root.shape[1:]))
        if kept is not None:
            columns = self._by_column()[:, : kept.shape[1]]
            columns.copy_(kept.permute(0, 1, *(dim + 1 for dim in self.order[1:])))
        self.rows[: self.num_trees] = root

    def read(self, rows: Tensor) -> Tensor:
        """Some rows, `[M]` int64 to `[M, ...]`."""
        return self.rows.index_select(0, rows).permute(self.inverse)

    def write(self, first: int, leaf: Tensor, rows: Tensor | None) -> None:
        """Writes a step's new rows, all (None) or some, from column `first` on."""
        leaf, start = leaf.permute(self.order), first * self.num_trees
        if rows is None:
            self.rows[start : start + len(leaf)] = leaf
        else:
            self.rows.index_copy_(0, rows + start, leaf)

    def read_tree(self) -> Tensor:
        """All nodes, `[B, N, ...]`."""
        return self._by_column().permute(0, 1, *(dim + 1 for dim in self.inverse[1:]))

    def _by_column(self) -> Tensor:
        # [N * B, ...] -> [N, B, ...] -> [B, N, ...]
        return self.rows.view(-1, self.num_trees, *self.rows.shape[1:]).transpose(0, 1)


def _find_root_faults(tree: Tree) -> Tensor:
    """`[B]` int64: what is wrong with each root, -1 where nothing is, as the kernel writes it."""
    valid = tree.valid_actions[:, Tree.ROOT]
    logits = torch.isfinite(tree.children_prior_logits[:, Tree.ROOT]) | ~valid
    good = {
        "valid_actions": valid.any(dim=-1),
        "value": torch.isfinite(tree.raw_values[:, Tree.ROOT]),
        "prior_logits": logits.all(dim=-1),
    }
    faults = torch.full_like(tree.rows, -1)
    for field, is_good in good.items():
        faults.masked_fill_(~is_good, kernels.FIELDS.index(field))
    return faults


def _require_finite(tree: Tree, faults: Tensor, *, num_kept: int) -> None:
    """Raises an error that names the number of the model that is not finite, and its row.

    Raises:
        ValueError: Naming the field, the row, the simulation, what was found, what is required and
            the remedy.
    """
    # The one host synchronization of a search.
    found = to_list(faults)
    if max(found) < 0:
        return
    row = next(row for row, fault in enumerate(found) if fault >= 0)
    column, index = divmod(found[row], kernels.FIELDS_BASE)
    field = kernels.FIELDS[index]
    if field == "score":
        raise_no_score(tree.node_values.dtype, row=row)
    if field == "valid_actions":
        raise ValueError(
            f"RootOutput.valid_actions, row {row}: found 0 of {tree.num_actions} actions valid; "
            "required at least one valid action at the root. Do not plan from finished states: "
            "drop such rows before calling plan."
        )
    edge = (row, int(tree.parents[row, column]), int(tree.action_from_parent[row, column]))
    number: Tensor = {
        "prior_logits": tree.children_prior_logits[row, column],
        "value": tree.raw_values[row, column],
        "reward": tree.children_rewards[edge],
        "discount": tree.children_discounts[edge],
    }[field]
    owner, when = (
        ("RootOutput", "")
        if column < num_kept
        else ("StepOutput", f" in simulation {column - num_kept} (from 0)")
    )
    where = " where valid_actions is True" if field == "prior_logits" else ""
    raise ValueError(
        f"{owner}.{field}, row {row}{when}: found {to_list(number)}; required finite "
        f"values{where}. Check the model's weights and inputs for this row; mark actions that "
        "cannot be taken in valid_actions instead of in the numbers."
    )
