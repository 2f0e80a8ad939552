"""Search methods for text: a planner, its budget, and the settings that suit samples of a policy.

The budget is the number of responses for best-of-N and its variants, simulations of a decision for
a tree search, segments a step for beam search, and tokens considered for controlled decoding. No
noise is added: samples of the policy bring the variety.
"""

import math
from dataclasses import replace
from functools import partial

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import LeafValue, NoValue, PartialReward
from policies.planning.options import (
    BEAM_PROPOSALS,
    POOLED,
    MethodName,
    SearchOptions,
    check_budget,
    method_name,
)
from policies.planning.searcher import Answer, SearchPolicy
from policies.planning.segment_rewards import SegmentReward
from rewardmodel.interface import RewardModel
from search.planners.base import Planner
from search.planners.registry import build_planner, planner_settings
from search.qtransforms import qtransform_completed_by_mix_value

_BY_LEVELS = ("beam", "dvts", "rejection")
_ANSWERS: dict[MethodName, Answer] = {"weighted": "weighted", "majority": "majority"}
_PROPOSALS = 8
_RESAMPLES = 1
_SEGMENTS = 8  # of a response, roughly; set on toys and training prompts
_LEAST_VISITS, _MOST_VISITS = 1.0, 3.0  # of the best proposal before another; set as _SEGMENTS was


def sampled_gumbel_scale(
    num_proposals: int, num_simulations: int, *, value_scale: float | None = None
) -> tuple[float, float]:
    """How Gumbel MuZero weighs Q-values of samples, whose prior is uniform over K proposals.

    The improved policy is the softmax of `(maxvisit_init + most visits) * value_scale * q`, with q
    in [0, 1]. Where one proposal has q = 1 and the others 0, both numbers follow from the odds of
    the one against the others together. At a new node they are 1 + 8K / n : 1, so that the best
    line is followed while the n / K simulations of a proposal pay for little more than one line
    below it (a response has some 8 segments or fewer), and the best proposal gets half of the
    visits where there are many more. A proposal that was visited n times has sqrt(1 + n) times
    these odds, and none can have more. So a node that is visited N times gives its worst proposal
    at least the order of N / log n visits, and its best proposal a share that goes to 1: every
    proposal is tried more and more often as budgets grow, and values approach those of the best
    continuation. (A constant `value_scale`, as in self-play with a learned prior, makes the share
    of the others fall like exp(-value_scale * N), and what is not tried early is never tried.)

    Args:
        num_proposals: K.
        num_simulations: n, of one plan.
        value_scale: Given by the user, more than 0; the odds at a new node stay the same.

    Returns:
        `value_scale` and `maxvisit_init`.
    """
    scale = value_scale
    if scale is None:
        scale = 0.5 * math.log1p(num_simulations) / num_simulations
    odds = 1 + _SEGMENTS * num_proposals / num_simulations
    at_new_node = math.log(odds * max(1, num_proposals - 1))
    return scale, at_new_node / scale


def sampled_c_puct(num_proposals: int, num_simulations: int) -> float:
    """How much MuZero explores among samples, whose prior is uniform over K proposals.

    Where one proposal has q = 1 and the others, untried, 0, it is visited m times before another
    is tried if c1 = K sqrt(m + 1) / m: then the bonus of an untried proposal, c1 / K times the
    root of the node's m + 1 visits, reaches what is left of 1 and the own bonus. Small budgets pay
    for breadth alone (m = 1 for 8 simulations), larger ones follow the best proposal deeper, as
    the number of levels that they pay for grows with their logarithm: m = log2(n) - 2, up to 3.
    PUCT's bonus grows with the root of a node's visits, so every proposal is tried in the end.

    Args:
        num_proposals: K.
        num_simulations: n, of one plan.
    """
    visits = min(max(math.log2(num_simulations) - 2, _LEAST_VISITS), _MOST_VISITS)
    return num_proposals * math.sqrt(visits + 1) / visits


def build_searcher(
    method: MethodName,
    budget: int,
    *,
    policy: Policy,
    reward_model: RewardModel,
    proposal: Proposal,
    leaf_value: LeafValue | None = None,
    segment_reward: SegmentReward | None = None,
    options: SearchOptions | None = None,
) -> SearchPolicy:
    """Makes a policy that searches.

    Args:
        method: Which planner.
        budget: What is tried at a decision.
        policy: Proposes segments.
        reward_model: Scores finished responses.
        proposal: Where segments end; best-of-N always takes whole responses, controlled decoding
            always tokens, and speculative rejection blocks where the unit is a response or token.
        leaf_value: Values unfinished ones; None scores the text so far by the reward model.
        segment_reward: What segments earn on the way.
        options: How to search; None takes the defaults.

    Raises:
        ValueError: As `check_budget` and `SearchPolicy`.
    """
    check_budget(method, budget)
    method, options = method_name(method), options or SearchOptions()
    proposal = _proposal_of(method, proposal)
    token_budget = options.token_budget
    if method in _BY_LEVELS and token_budget is None:
        token_budget = budget * proposal.max_new_tokens
    return SearchPolicy(
        policy=policy,
        reward_model=reward_model,
        leaf_value=NoValue() if method in POOLED else leaf_value or PartialReward(),
        planner=method_planner(method, budget, proposal, options),
        proposal=proposal,
        num_proposals=_num_proposals(method, budget, options),
        segment_reward=segment_reward,
        resamples=None if method in POOLED or method == "rejection" else _RESAMPLES,
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
    if method == "controlled_decoding":
        return replace(proposal, unit="token")
    if method == "rejection" and proposal.unit in ("token", "response"):
        return replace(proposal, unit="block")
    return proposal


def _num_proposals(method: MethodName, budget: int, options: SearchOptions) -> int:
    """K, the proposals of a node."""
    if method == "beam":
        return min(BEAM_PROPOSALS, budget)
    by_budget = method in (*POOLED, *_BY_LEVELS, "controlled_decoding")
    return budget if by_budget else min(options.num_proposals or _PROPOSALS, budget)


def method_planner(
    method: MethodName, budget: int, proposal: Proposal, options: SearchOptions
) -> Planner:
    """A method's planner: its own defaults, without noise, and what suits the proposal.

    Args:
        method: As `build_searcher`, as are the others.
        budget: What is tried at a decision.
        proposal: Where segments end.
        options: How to search.
    """
    name = "best_of_n" if method in POOLED else method_name(method)
    width, num_proposals = min(BEAM_PROPOSALS, budget), _num_proposals(name, budget, options)
    leaves = min(options.leaves_per_step, budget)
    known = planner_settings(name)
    wanted = {"dirichlet_fraction": 0.0, "gumbel_scale": 0.0, "temperature": 0.0}
    settings: dict[str, object] = {key: wanted[key] for key in wanted.keys() & known.keys()}
    if "leaves_per_step" in known:
        settings["leaves_per_step"] = leaves
    match name:
        case "rejection":
            settings["num_lines"] = budget
            if options.rejection_keep is not None:
                settings["keep"] = options.rejection_keep
        case "beam":
            settings["beam_width"] = max(1, budget // width)
        case "dvts":
            settings |= {"num_groups": max(1, budget // width), "num_children": width}
        case "controlled_decoding":
            settings["kl_weight"] = options.kl_weight
        case "muzero":
            explored = options.c_puct
            if explored is None and not proposal.ranked:
                explored = sampled_c_puct(num_proposals, budget)
            if explored is not None:
                settings["pb_c_init"] = explored
        case "gumbel_muzero":
            settings["max_num_considered_actions"] = num_proposals
            numbers: dict[str, float | None] = {}
            if not proposal.ranked:
                scale = sampled_gumbel_scale(num_proposals, budget, value_scale=options.value_scale)
                numbers = dict(zip(("value_scale", "maxvisit_init"), scale, strict=True))
            given = {"value_scale": options.value_scale, "maxvisit_init": options.maxvisit_init}
            numbers |= {key: value for key, value in given.items() if value is not None}
            if numbers:
                settings["qtransform"] = partial(qtransform_completed_by_mix_value, **numbers)
        case _:
            pass
    levels = proposal.max_new_tokens  # the most that there can be: each has at least one token
    return build_planner(name, budget * levels if name in _BY_LEVELS else budget, **settings)
