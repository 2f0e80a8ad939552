"""Search methods for text: a planner, its budget, and the settings that suit samples of a policy.

The budget is the number of responses for best-of-N and its variants, simulations of a decision for
a tree search, segments a step for beam search, and tokens considered for controlled decoding. No
noise is added: samples of the policy bring the variety.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import LeafValue, NoValue, PartialReward
from policies.planning.searcher import Answer, SearchPolicy
from policies.planning.segment_rewards import SegmentReward
from prefsearch.config.bounds import Count, KLWeight, NonNegative, Positive, PositiveFraction, Size
from prefsearch.config.checks import check_types, require, shown
from rewardmodel.interface import RewardModel
from search.planners.base import Planner
from search.planners.registry import ALIASES, PLANNER_NAMES, build_planner, planner_settings
from search.qtransforms import qtransform_completed_by_mix_value

MethodName: TypeAlias = str
"""One of `METHOD_NAMES`, or any other planner of `search.planners.registry`."""

TITLES: dict[MethodName, str] = {
    "best_of_n": "best-of-N",
    "weighted": "weighted best-of-N",
    "majority": "majority vote",
    "rejection": "speculative rejection",
    "beam": "beam search",
    "dvts": "DVTS",
    "muzero": "MCTS (MuZero)",
    "gumbel_muzero": "MCTS (Gumbel)",
    "controlled_decoding": "controlled decoding",
}
METHOD_NAMES: tuple[MethodName, ...] = tuple(TITLES)
TITLES |= {name: name for name in PLANNER_NAMES if name not in TITLES}
POOLED: tuple[MethodName, ...] = ("best_of_n", "weighted", "majority")
"""Methods that choose among whole responses, all of them samples of the policy."""
_BY_LEVELS = ("beam", "dvts", "rejection")
_ANSWERS: dict[MethodName, Answer] = {"weighted": "weighted", "majority": "majority"}
_CANDIDATES = 8
_BEAM_CANDIDATES = 4
_RESAMPLES = 1
_SEGMENTS = 8  # of a response, roughly; set on toys and training prompts
_LEAST_VISITS, _MOST_VISITS = 1.0, 3.0  # of the best candidate before another; set as _SEGMENTS was


@dataclass(frozen=True)
class SearchOptions:
    """How methods search, beside their budgets.

    Attributes:
        leaves_per_step: Tree search: leaves of each tree that go through the model at once.
        c_puct: MuZero: c1, the weight of exploration. None takes the planner's default for
            ranked tokens, and `sample_exploration` for samples.
        value_scale: Gumbel MuZero: weight of Q-values against the prior; more follows the best
            candidate found so far sooner. None takes the planner's default for ranked tokens, and
            `sample_scale` for samples.
        maxvisit_init: Gumbel MuZero: visits added to those that `value_scale` multiplies, so that
            a new node weighs Q-values by the product of both. None as for `value_scale`.
        token_budget: The most tokens sampled for a prompt. None is no limit for tree search and
            controlled decoding, and what so many whole responses could take for level searches.
        answer_form: Weighted best-of-N and majority vote: how answers are read,
            `rewardmodel.models.answers.extract_answer`.
        kl_weight: Controlled decoding: cost of one nat of divergence from the policy.
        rejection_keep: Speculative rejection: share of the responses that goes on after each
            segment. None takes the planner's default.
        batch_size: Prompts searched side by side.
        max_rows: The most segments that are sampled side by side.
    """

    leaves_per_step: Size = 1
    c_puct: NonNegative | None = None
    # At 0 samples, whose prior is uniform, would all be alike whatever their values.
    value_scale: Positive | None = None
    maxvisit_init: NonNegative | None = None
    token_budget: Count | None = None
    answer_form: str = "auto"
    kl_weight: KLWeight = 0.3
    rejection_keep: PositiveFraction | None = None
    batch_size: Size = 64
    max_rows: Size = 256

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        scale = self.value_scale  # maxvisit_init is divided by it
        require(scale is None or scale >= 1e-9, "value_scale", scale, "at least 1e-9, or null")


def method_name(name: str) -> MethodName:
    """The name of a method, aliases resolved (`gumbel` is `gumbel_muzero`).

    Raises:
        ValueError: If there is no such method.
    """
    found = ALIASES.get(name, name)
    if found not in TITLES:
        raise ValueError(f"method: found {shown(name)}; required: one of {', '.join(METHOD_NAMES)}")
    return found


def seed_name(method: MethodName, budget: int) -> str:
    """The name of a search's random stream; two methods keep the names recorded runs drew by."""
    recorded = {"gumbel_muzero": "gumbel", "controlled_decoding": "guided"}
    return f"search-{recorded.get(method, method)}-{budget}"


def check_budget(method: MethodName, budget: int) -> None:
    """Checks a method and its budget.

    Raises:
        ValueError: If the method is unknown, the budget is not positive, or beams of four segments
            cannot use it up.
    """
    method = method_name(method)
    if budget < 1:
        raise ValueError(f"budget: found {budget}; required: at least 1")
    if method in ("beam", "dvts") and budget > _BEAM_CANDIDATES and budget % _BEAM_CANDIDATES:
        raise ValueError(
            f"budget: found {budget} for {TITLES[method]}; required: at most {_BEAM_CANDIDATES}, "
            f"or a multiple of {_BEAM_CANDIDATES}, the segments that each beam tries"
        )


def sample_scale(
    num_candidates: int, num_simulations: int, *, value_scale: float | None = None
) -> tuple[float, float]:
    """How Gumbel MuZero weighs Q-values of samples, whose prior is uniform over K candidates.

    The improved policy is the softmax of `(maxvisit_init + most visits) * value_scale * q`, with q
    in [0, 1]. Where one candidate has q = 1 and the others 0, both numbers follow from the odds of
    the one against the others together. At a new node they are 1 + 8K / n : 1, so that the best
    line is followed while the n / K simulations of a candidate pay for little more than one line
    below it (a response has some 8 segments or fewer), and the best candidate gets half of the
    visits where there are many more. A candidate that was visited n times has sqrt(1 + n) times
    these odds, and none can have more. So a node that is visited N times gives its worst candidate
    at least the order of N / log n visits, and its best candidate a share that goes to 1: every
    candidate is tried more and more often as budgets grow, and values approach those of the best
    continuation. (A constant `value_scale`, as in self-play with a learned prior, makes the share
    of the others fall like exp(-value_scale * N), and what is not tried early is never tried.)

    Args:
        num_candidates: K.
        num_simulations: n, of one plan.
        value_scale: Given by the user, more than 0; the odds at a new node stay the same.

    Returns:
        `value_scale` and `maxvisit_init`.
    """
    scale = value_scale
    if scale is None:
        scale = 0.5 * math.log1p(num_simulations) / num_simulations
    odds = 1 + _SEGMENTS * num_candidates / num_simulations
    at_new_node = math.log(odds * max(1, num_candidates - 1))
    return scale, at_new_node / scale


def sample_exploration(num_candidates: int, num_simulations: int) -> float:
    """How much MuZero explores among samples, whose prior is uniform over K candidates.

    Where one candidate has q = 1 and the others, untried, 0, it is visited m times before another
    is tried if c1 = K sqrt(m + 1) / m: then the bonus of an untried candidate, c1 / K times the
    root of the node's m + 1 visits, reaches what is left of 1 and the own bonus. Small budgets pay
    for breadth alone (m = 1 for 8 simulations), larger ones follow the best candidate deeper, as
    the number of levels that they pay for grows with their logarithm: m = log2(n) - 2, up to 3.
    PUCT's bonus grows with the root of a node's visits, so every candidate is tried in the end.

    Args:
        num_candidates: K.
        num_simulations: n, of one plan.
    """
    visits = min(max(math.log2(num_simulations) - 2, _LEAST_VISITS), _MOST_VISITS)
    return num_candidates * math.sqrt(visits + 1) / visits


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
        num_proposals=_num_proposals(method, budget),
        segment_reward=segment_reward,
        resamples=None if method in POOLED or method == "rejection" else _RESAMPLES,
        token_budget=token_budget,
        replan=method not in _BY_LEVELS,
        answer=_ANSWERS.get(method, "best"),
        answer_form=options.answer_form,
        batch_size=options.batch_size,
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


def _num_proposals(method: MethodName, budget: int) -> int:
    """Segments that a node can hold."""
    if method == "beam":
        return min(_BEAM_CANDIDATES, budget)
    by_budget = method in (*POOLED, *_BY_LEVELS, "controlled_decoding")
    return budget if by_budget else min(_CANDIDATES, budget)


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
    width, candidates = min(_BEAM_CANDIDATES, budget), _num_proposals(name, budget)
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
                explored = sample_exploration(candidates, budget)
            if explored is not None:
                settings["pb_c_init"] = explored
        case "gumbel_muzero":
            settings["max_num_considered_actions"] = candidates
            numbers: dict[str, float | None] = {}
            if not proposal.ranked:
                scale = sample_scale(candidates, budget, value_scale=options.value_scale)
                numbers = dict(zip(("value_scale", "maxvisit_init"), scale, strict=True))
            given = {"value_scale": options.value_scale, "maxvisit_init": options.maxvisit_init}
            numbers |= {key: value for key, value in given.items() if value is not None}
            if numbers:
                settings["qtransform"] = partial(qtransform_completed_by_mix_value, **numbers)
        case _:
            pass
    levels = proposal.max_new_tokens  # the most that there can be: each has at least one token
    return build_planner(name, budget * levels if name in _BY_LEVELS else budget, **settings)
