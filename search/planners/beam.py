"""Beam search over actions, and its diverse form with independent groups (DVTS).

With steps of reasoning as actions this is step-level beam search; with tokens, value-guided
decoding.
"""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from search.model import PlanningModel, RootOutput, StepOutput, evaluate_root
from search.planners.base import SearchOutput, release_output, require_int
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
class BeamPlanner:
    """Searches depth by depth; each of `num_groups` groups keeps its `beam_width` best candidates.

    A candidate's score is the discounted sum of rewards along its path plus the product of the
    path's discounts times its value. At each depth every kept candidate of every group is expanded:
    its first `num_children` valid actions are evaluated, in one step call for all rows. Candidates
    compete within their group. Finished ones (discount 0, or no valid action) compete for the
    places but are not expanded. A row ends when all it keeps are finished, at `max_depth`, or when
    its budget is spent; a depth it can only partly afford expands the groups in order, in each the
    best candidates first, and of the last one the actions of highest prior. Ties between candidates
    go to the better beam, then the lower action; ties between root actions to the lowest index.

    With several groups the root's valid actions, in order, are split into blocks of
    `num_children`: the m-th block holds the first candidates of group m. A row with fewer valid
    actions has fewer groups, and the last may begin with fewer candidates; actions beyond the last
    block are not tried. Groups share only the budget, and those it does not reach are empty. Groups
    of `beam_width` 1 are diverse verifier tree search, `dvts` in the registry, which needs at most
    `num_groups` * `num_children` * d step rows to depth d.

    The decision is read off the tree: the value of an expanded node is that of its best evaluated
    child, of any other its raw value. So `value` is the best score among
    all candidates that were never expanded, pruned ones included, and `action` is the first
    action towards it. `action_weights` are one-hot. (Deviation from the source of DVTS, which
    returns the best candidate kept to the end: ours may be one that was pruned.)

    In the tree a node's visits are 1 + the number of nodes evaluated below it, so the root has
    1 + the number of step rows spent; `node_values` are max back-ups as above, not means. It has
    as many nodes as were evaluated: N = 1 + the most step rows that any row of the batch spent, at
    most `num_simulations` + 1. An unused budget costs no memory.

    Attributes:
        num_simulations: The budget of step rows per root, at least 1.
        beam_width: Candidates a group keeps per depth, at least 1.
        num_groups: Independent groups, at least 1.
        num_children: Actions tried of each candidate, at least 1; None for all valid ones, with
            one group only.
        max_depth: Most actions from the root; None for no limit but the budget.

    Raises:
        ValueError: If a number is out of its range, or several groups lack `num_children`.

    Source: Lowerre 1976 (beam search); Yao et al. 2023 (Tree of Thoughts, breadth-first);
    Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models" (DVTS, where N
    beams of width M make N/M subtrees: here groups of M children).
    """

    num_simulations: int
    _: KW_ONLY
    beam_width: int = 4
    num_groups: int = 1
    num_children: int | None = None
    max_depth: int | None = None

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_int(owner, "num_simulations", self.num_simulations, minimum=1)
        require_int(owner, "beam_width", self.beam_width, minimum=1)
        require_int(owner, "num_groups", self.num_groups, minimum=1)
        require_int(owner, "num_children", self.num_children, minimum=1, optional=True)
        require_int(owner, "max_depth", self.max_depth, minimum=1, optional=True)
        if self.num_groups > 1 and self.num_children is None:
            raise ValueError(
                f"{owner}.num_children: found None with num_groups = {self.num_groups}; required "
                "an int, by which root actions are split into groups. Pass num_children, or "
                "num_groups=1."
            )

    def plan(
        self, model: PlanningModel, observation: object, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Plans from each observation; see `search.planners.base.Planner.plan`.

        Raises:
            ValueError: If the model's outputs break the contract, or a discount is negative
                (two players: the best path for one is not what both would play).
        """
        with torch.inference_mode():
            root = evaluate_root(model, observation, generator=generator)
            tree = build_tree(root, self._search(model, root, generator))
            action, weights, value = read_decision(tree)
        return release_output(action, weights, value, tree)

    def _search(
        self, model: PlanningModel, root: RootOutput, generator: torch.Generator | None
    ) -> list[Level]:
        """The levels of a search, the roots' first."""
        num_actions = root.prior_logits.shape[1]
        block = min(self.num_children or num_actions, num_actions)
        num_groups = min(self.num_groups, -(-num_actions // block))  # more would get no action
        levels = [root_level(root)]
        first = levels[0].rows.unsqueeze(-1).expand(-1, num_groups)  # [B, G], all the root
        frontier = Frontier(first, torch.full_like(first, -torch.inf, dtype=levels[0].score.dtype))
        group = torch.arange(num_groups, device=first.device).view(1, -1, 1)
        while self.max_depth is None or len(levels) <= self.max_depth:
            last = levels[-1]
            valid = last.output.valid_actions[frontier.open.clamp_min(0)]  # [B, P, A]
            dealt = (valid.cumsum(dim=-1) - 1) // block == (group if len(levels) == 1 else 0)
            wanted = valid & dealt & (frontier.open != EMPTY).unsqueeze(-1)
            edges = select_within_budget(
                last, frontier.open, wanted, num_simulations=self.num_simulations
            )
            if edges.rows.numel() == 0:
                break
            level = evaluate_edges(model, last, edges, generator=generator)
            _require_one_player(type(self).__name__, level)
            frontier = _keep_best(frontier, level, num_groups, self.beam_width)
            levels.append(level)
        return levels


@dataclass(frozen=True)
class Frontier:
    """The candidates kept in the P places of each of B rows.

    Attributes:
        open: `[B, P]` int64, which node of the last level may be expanded, `EMPTY` where none.
        finished_score: `[B, P]`, score of the finished candidate that keeps the place, `-inf`
            where none.
    """

    open: Tensor
    finished_score: Tensor


def _keep_best(frontier: Frontier, level: Level, num_groups: int, beam_width: int) -> Frontier:
    """The best finished and new candidates of each group, best first; old ones win ties."""
    batch_size = frontier.open.shape[0]
    edges = (*frontier.open.shape, level.output.prior_logits.shape[1])  # [B, P, A]
    edge = (level.rows, level.place, level.action)
    # Open candidates have become their children; what the budget left out is not kept either, as
    # a row without budget never expands again.
    new_score = level.score.new_full(edges, -torch.inf)
    new_score[edge] = level.score
    new_node = level.rows.new_full(edges, EMPTY)
    new_node[edge] = torch.arange(level.rows.shape[0], device=level.rows.device)

    def candidates(old: Tensor, new: Tensor) -> Tensor:
        by_group = (batch_size, num_groups, -1)
        return torch.cat([old.reshape(by_group), new.view(by_group)], dim=-1)  # [B, G, P/G*(1+A)]

    score = candidates(frontier.finished_score, new_score)
    node = candidates(torch.full_like(frontier.open, EMPTY), new_node)
    best = score.argsort(dim=-1, descending=True, stable=True)[..., :beam_width]
    score = score.gather(-1, best).flatten(1)  # [B, P]
    node = node.gather(-1, best).flatten(1)
    finished = (node == EMPTY) | level.terminal[node.clamp_min(0)]
    return Frontier(
        open=node.masked_fill(finished, EMPTY),
        finished_score=score.masked_fill(~finished, -torch.inf),
    )


def _require_one_player(owner: str, level: Level) -> None:
    """Raises if a discount is negative."""
    step = level.output
    if isinstance(step, StepOutput) and bool((step.discount < 0).any()):
        found = float(step.discount.min())
        raise ValueError(
            f"{owner}: found a discount of {found}; required discounts of at least 0, as the best "
            "path for one player is not what two would play. Use MuZeroPlanner or "
            "GumbelMuZeroPlanner for two players."
        )
