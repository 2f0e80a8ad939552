"""Speculative rejection: start many lines of actions at once and drop the worst at each step.

With blocks of tokens as actions this is best-of-N that stops generating responses of low score.
"""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from search.model import PlanningModel, evaluate_root, to_list
from search.planners.base import SearchOutput, release_output, require_float, require_int
from search.planners.level_search import (
    EMPTY,
    Level,
    build_tree,
    evaluate_edges,
    read_decision,
    root_level,
    select_within_budget,
)


@dataclass(frozen=True)
class RejectionPlanner:
    """Follows `num_lines` lines from the root and keeps the best share of them at each step.

    The first `num_lines` valid root actions begin a line each. At every step each line that is not
    finished takes its node's first valid action, all lines of all rows in one call; then of each
    row's n unfinished lines the ceil(`keep` * n) of the highest score continue, ties to the earlier
    line. A line's score is the discounted sum of its rewards plus the product of its discounts
    times its value. Finished lines (discount 0, or no valid action) stay and do not count.
    With `keep` = 1 nothing is rejected: best-of-N, written step by step.

    A row ends when all its lines are finished or rejected, or when `num_simulations` step rows are
    spent. The decision and the tree are those of `search.planners.beam.BeamPlanner`: the value of
    a node is that of its best evaluated child, so `value` is the best score of all lines, rejected
    ones included.

    Attributes:
        num_simulations: The budget of step rows per root, at least 1.
        num_lines: Lines begun, at least 1.
        keep: Share of the unfinished lines kept after each step, in (0, 1].

    Raises:
        ValueError: If a number is out of its range.

    Source: Sun et al. 2024 (Fast Best-of-N Decoding via Speculative Rejection), Algorithm 1, which
    rejects when memory runs out; here after every step.
    """

    num_simulations: int
    _: KW_ONLY
    num_lines: int = 16
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_simulations", self.num_simulations, minimum=1)
        require_int(owner, "num_lines", self.num_lines, minimum=1)
        require_float(owner, "keep", self.keep, maximum=1.0, above=True)

    def plan(
        self, model: PlanningModel, observation: object, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Plans from each observation; see `search.planners.base.Planner.plan`."""
        with torch.inference_mode():
            root = evaluate_root(model, observation, generator=generator)
            levels = [root_level(root)]
            frontier = levels[0].rows.unsqueeze(-1)  # [B, P] int64, nodes of the last level
            while True:
                last = levels[-1]
                valid = last.output.valid_actions[frontier.clamp_min(0)]  # [B, P, A]
                branching = self.num_lines if len(levels) == 1 else 1
                wanted = valid & (valid.cumsum(-1) <= branching) & (frontier != EMPTY)[..., None]
                edges = select_within_budget(
                    last, frontier, wanted, num_simulations=self.num_simulations
                )
                if edges.rows.numel() == 0:
                    break
                levels.append(evaluate_edges(model, last, edges, generator=generator))
                frontier = _best_unfinished(levels[-1], len(frontier), keep=self.keep)
            tree = build_tree(root, levels)
            action, weights, value = read_decision(tree)
        return release_output(action, weights, value, tree)


def _best_unfinished(level: Level, batch_size: int, *, keep: float) -> Tensor:
    """The best share of each row's unfinished nodes of a level, `[B, P]` int64, best first."""
    rows: list[list[int]] = [[] for _ in range(batch_size)]
    # Host synchronization once a level: how many continue decides the next step's batch.
    scores: list[float] = to_list(level.score)
    alive: list[bool] = to_list(~level.terminal)
    trees: list[int] = to_list(level.rows)
    for node, row in enumerate(trees):
        if alive[node]:
            rows[row].append(node)
    for row, nodes in enumerate(rows):
        nodes.sort(key=lambda node: -scores[node])
        rows[row] = nodes[: math.ceil(keep * len(nodes))]
    width = max(1, *map(len, rows)) if rows else 1
    padded = [nodes + [EMPTY] * (width - len(nodes)) for nodes in rows]
    return torch.tensor(padded, device=level.rows.device)
