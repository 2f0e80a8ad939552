"""The planners as they are used on text: one name and one budget make a searching policy.

The budget is what is tried at a decision: N responses for best-of-N and its kin, simulations for a
tree search, segments a step for beam search, tokens considered for guided decoding. Planning is for
use, not for self-play, so no noise is added: samples of the policy bring the variety.
"""

import math
from dataclasses import replace

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import LeafValue, NoValue, PartialReward
from policies.planning.options import (
    BEAM_SLOTS,
    POOLED,
    MethodName,
    SearchOptions,
    check_budget,
)
from policies.planning.searcher import Answer, SearchPolicy
from policies.planning.segment_rewards import SegmentReward
from rewardmodel.interface import RewardModel
from search import PlannerConfig, build_planner

_BY_LEVELS: tuple[MethodName, ...] = ("beam", "dvts", "rejection")
_ANSWERS: dict[str, Answer] = {"weighted": "weighted", "majority": "majority"}
_SLOTS = 8
_REDRAWS = 1
_RANKED_EXPLORATION = 1.25  # MuZero's c1, where the prior is informative
_SEGMENTS = 8  # of a response, roughly; set on toys and training prompts
_LEAST_VISITS, _MOST_VISITS = 1.0, 3.0  # of the best slot before another; set as _SEGMENTS was
_RANKED_SCALE = (0.1, 50.0)  # Gumbel MuZero's, where the prior is informative


def sample_scale(
    num_slots: int, num_simulations: int, *, value_scale: float | None = None
) -> tuple[float, float]:
    """How MCTS (Gumbel) weighs Q-values of samples, whose prior is uniform over K slots.

    The improved policy is the softmax of `(maxvisit_init + most visits) * value_scale * q`, with q
    in [0, 1]. Where one slot has q = 1 and the others 0, both numbers follow from the odds of the
    one against the others together. At a new node they are 1 + 8K / n : 1, so that the best line
    is followed while the n / K simulations of a slot pay for little more than one line below it
    (a response has some 8 segments or fewer), and the best slot gets half of the visits where
    there are many more. A slot that was visited n times has sqrt(1 + n) times these odds, and none
    can have more. So a node that is visited N times gives its worst slot at least the order of
    N / log n visits, and its best slot a share that goes to 1: every slot is tried more and more
    often as budgets grow, and values approach those of the best continuation. (A constant
    `value_scale`, as in self-play with a learned prior, makes the share of the others fall like
    exp(-value_scale * N), and what is not tried early is never tried.)

    Args:
        num_slots: K.
        num_simulations: n, of one plan.
        value_scale: Given by the user, more than 0; the odds at a new node stay the same.

    Returns:
        `value_scale` and `maxvisit_init`.
    """
    scale = value_scale
    if scale is None:
        scale = 0.5 * math.log1p(num_simulations) / num_simulations
    odds = 1 + _SEGMENTS * num_slots / num_simulations
    at_new_node = math.log(odds * max(1, num_slots - 1))
    return scale, at_new_node / scale


def sample_exploration(num_slots: int, num_simulations: int) -> float:
    """How much MCTS (MuZero) explores among samples, whose prior is uniform over K slots.

    Where one slot has q = 1 and the others, untried, 0, it is visited m times before another is
    tried if c1 = K sqrt(m + 1) / m: then the bonus of an untried slot, c1 / K times the root of the
    node's m + 1 visits, reaches what is left of 1 and the own bonus. Small budgets pay for breadth
    alone (m = 1 for 8 simulations), larger ones follow the best slot deeper, as the number of
    levels that they pay for grows with their logarithm: m = log2(n) - 2, up to 3. PUCT's bonus
    grows with the root of a node's visits, so every slot is tried in the end.

    Args:
        num_slots: K.
        num_simulations: n, of one plan.
    """
    visits = min(max(math.log2(num_simulations) - 2, _LEAST_VISITS), _MOST_VISITS)
    return num_slots * math.sqrt(visits + 1) / visits


def build_searcher(
    method: MethodName,
    budget: int,
    *,
    policy: Policy,
    reward_model: RewardModel,
    leaf_value: LeafValue | None,
    proposal: Proposal,
    segment_reward: SegmentReward | None = None,
    options: SearchOptions | None = None,
) -> SearchPolicy:
    """Makes a searching policy.

    Args:
        method: Which planner.
        budget: What is tried at a decision.
        policy: Proposes.
        reward_model: Judges finished responses.
        leaf_value: Values unfinished ones; None asks the reward model about the text so far.
        proposal: Where segments end; best-of-N always takes whole responses, guided decoding
            always tokens, and speculative rejection blocks where the unit is a response or token.
        segment_reward: What segments earn on the way.
        options: How to search; None takes the defaults.

    Raises:
        ValueError: As `check_budget` and `SearchPolicy`.
    """
    check_budget(method, budget)
    options = options or SearchOptions()
    proposal = _proposal_of(method, proposal)
    token_budget = options.token_budget
    if method in _BY_LEVELS and token_budget is None:
        token_budget = budget * proposal.max_new_tokens
    slots = {"beam": BEAM_SLOTS, "muzero": _SLOTS, "gumbel": _SLOTS}.get(method, budget)
    return SearchPolicy(
        policy=policy,
        reward_model=reward_model,
        leaf_value=NoValue() if method in POOLED else leaf_value or PartialReward(),
        planner=build_planner(planner_config(method, budget, proposal, options)),
        proposal=proposal,
        num_slots=min(slots, budget),
        segment_reward=segment_reward,
        redraws=None if method in POOLED or method == "rejection" else _REDRAWS,
        token_budget=token_budget,
        replan=method not in _BY_LEVELS,
        answer=_ANSWERS.get(method, "best"),
        answer_form=options.answer_form,
        batch_size=options.search_batch_size,
        max_rows=options.max_rows,
    )


def _proposal_of(method: MethodName, proposal: Proposal) -> Proposal:
    """The proposal with the segments that a method needs."""
    if method in POOLED:
        return replace(proposal, unit="response")
    if method == "guided":
        return replace(proposal, unit="token")
    if method == "rejection" and proposal.unit in ("token", "response"):
        return replace(proposal, unit="block")
    return proposal


def planner_config(
    method: MethodName, budget: int, proposal: Proposal, options: SearchOptions
) -> PlannerConfig:
    """A method's planner and its numbers."""
    levels = proposal.max_new_tokens  # the most that there can be: each has at least one token
    width = min(BEAM_SLOTS, budget)
    match method:
        case "best_of_n" | "weighted" | "majority":
            return PlannerConfig(planner="best_of_n", num_simulations=budget)
        case "rejection":
            return PlannerConfig(
                planner="rejection",
                num_simulations=budget * levels,
                num_lines=budget,
                keep=options.rejection_keep,
            )
        case "beam":
            return PlannerConfig(
                planner="beam",
                num_simulations=budget * levels,
                beam_width=max(1, budget // width),
            )
        case "dvts":
            return PlannerConfig(
                planner="dvts",
                num_simulations=budget * levels,
                num_subtrees=max(1, budget // width),
                subtree_width=width,
            )
        case "guided":
            return PlannerConfig(
                planner="regularized",
                num_simulations=budget,
                kl_weight=options.kl_weight,
                temperature=0.0,
            )
        case "muzero" | "gumbel":
            slots = min(_SLOTS, budget)
            scale, visits = sample_scale(slots, budget, value_scale=options.value_scale)
            explored = sample_exploration(slots, budget)
            if proposal.ranked:
                (scale, visits), explored = _RANKED_SCALE, _RANKED_EXPLORATION
            return PlannerConfig(
                planner=method,
                num_simulations=budget,
                dirichlet_fraction=0.0,
                pb_c_init=explored if options.exploration is None else options.exploration,
                temperature=0.0,
                gumbel_scale=0.0,
                max_num_considered_actions=slots,
                value_scale=scale if options.value_scale is None else options.value_scale,
                maxvisit_init=visits if options.maxvisit_init is None else options.maxvisit_init,
                leaves_per_step=min(options.leaves_per_step, budget),
            )
