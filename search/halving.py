"""Sequential Halving as a schedule of visit counts.

A root that always visits the best action *among those with the scheduled number of visits* runs
Sequential Halving without any other state.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def considered_visits(num_considered: int, num_simulations: int) -> tuple[int, ...]:
    """The visit count an action must have to be visited, at each simulation.

    Args:
        num_considered: Actions in the first round; 0 and 1 both visit one action throughout.
        num_simulations: The budget n.

    Returns:
        `num_simulations` counts. With m actions there are ceil(log2 m) rounds; a round gives each
        of its k actions max(1, floor(n / (rounds * k))) visits, then the better half is kept, but
        never fewer than two; the last round repeats until the budget is spent.

    Source: Karnin et al. 2013 (Sequential Halving); Danihelka et al. 2022, Algorithm 2.
    """
    if num_considered <= 1:
        return tuple(range(num_simulations))
    num_rounds = math.ceil(math.log2(num_considered))
    schedule: list[int] = []
    # Only the survivors are visited and they are all level: one count stands for all of them.
    count, survivors = 0, num_considered
    while len(schedule) < num_simulations:
        repeats = max(1, num_simulations // (num_rounds * survivors))
        for _ in range(repeats):
            schedule.extend([count] * survivors)
            count += 1
        survivors = max(2, survivors // 2)
    return tuple(schedule[:num_simulations])


@lru_cache(maxsize=256)
def considered_visits_table(
    max_considered: int, num_simulations: int, *, device: torch.device | None = None
) -> Tensor:
    """`considered_visits` for 0..max_considered actions, `[max_considered + 1, n]` int64.

    A table, because rows of a batch differ in their number of valid actions. It is made once and
    shared: read it only.
    """
    return torch.tensor(
        [considered_visits(m, num_simulations) for m in range(max_considered + 1)],
        dtype=torch.int64,
        device=device,
    )


def score_considered(
    considered: Tensor, gumbel: Tensor, *, logits: Tensor, qvalues: Tensor, visit_counts: Tensor
) -> Tensor:
    """Scores actions for an argmax over those that have the considered number of visits.

    Args:
        considered: `[B]` int64, the visit count that may be visited.
        gumbel: `[B, A]`, the root's Gumbel noise, already scaled.
        logits: `[B, A]`, the root's masked prior logits.
        qvalues: `[B, A]`, completed and transformed.
        visit_counts: `[B, A]` int64.

    Returns:
        `[B, A]`, gumbel + logits + qvalues, `-inf` for any other visit count. (mctx raises scores
        to at least -1e9; values below would then be equal.)

    Source: Danihelka et al. 2022 (Gumbel MuZero), Algorithm 2.
    """
    scores = gumbel + (logits - logits.amax(dim=-1, keepdim=True)) + qvalues
    return scores.masked_fill(visit_counts != considered.unsqueeze(-1), -math.inf)
