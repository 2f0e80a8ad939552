"""The planners as they are used on text: one name and one budget make a searching policy.

The budget is what is tried at a decision: N responses for best-of-N, simulations for a tree search,
segments a step for beam search. Planning is for use, not for self-play, so no noise is added:
samples of the policy bring the variety.
"""

from typing import Literal, get_args

from policies.language_model import Policy
from policies.leaf_values import LeafValue, PartialReward
from policies.proposals import Proposal
from policies.search_policy import SearchPolicy
from rewardmodel.interface import RewardModel
from search import PlannerConfig, build_planner

MethodName = Literal["best_of_n", "beam", "muzero", "gumbel"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
TITLES: dict[str, str] = {
    "best_of_n": "best-of-N",
    "beam": "beam search",
    "muzero": "MCTS (MuZero)",
    "gumbel": "MCTS (Gumbel)",
}
_SLOTS = 8
_BEAM_SLOTS = 4


def check_budget(method: MethodName, budget: int) -> None:
    """Checks a method and its budget.

    Raises:
        ValueError: If the method is unknown, the budget is not positive, or beams of four segments
            cannot use it up.
    """
    if method not in METHOD_NAMES:
        raise ValueError(f"method: found {method!r}; required: one of {', '.join(METHOD_NAMES)}")
    if budget < 1:
        raise ValueError(f"budget: found {budget}; required: at least 1")
    if method == "beam" and budget > _BEAM_SLOTS and budget % _BEAM_SLOTS:
        raise ValueError(
            f"budget: found {budget} for beam search; required: at most {_BEAM_SLOTS}, or a "
            f"multiple of {_BEAM_SLOTS}, the segments that each beam tries"
        )


def build_searcher(
    method: MethodName,
    budget: int,
    *,
    policy: Policy,
    reward_model: RewardModel,
    leaf_value: LeafValue | None,
    proposal: Proposal,
    batch_size: int = 64,
) -> SearchPolicy:
    """Makes a searching policy.

    Args:
        method: Which planner.
        budget: What is tried at a decision.
        policy: Proposes.
        reward_model: Judges finished responses.
        leaf_value: Values unfinished ones; None asks the reward model about the text so far.
        proposal: Where segments end; best-of-N always takes whole responses.
        batch_size: Prompts searched side by side.

    Raises:
        ValueError: As `check_budget`.
    """
    check_budget(method, budget)
    if method == "best_of_n":
        proposal, slots = Proposal(**{**vars(proposal), "unit": "response"}), budget
        config = PlannerConfig(planner=method, num_simulations=budget)
    elif method == "beam":
        slots = min(_BEAM_SLOTS, budget)
        width = max(1, budget // slots)
        # Every level fits: a segment has at least one token.
        most = width * slots * proposal.max_new_tokens
        config = PlannerConfig(planner=method, num_simulations=most, beam_width=width)
    else:
        slots = min(_SLOTS, budget)
        config = PlannerConfig(
            planner=method,
            num_simulations=budget,
            dirichlet_fraction=0.0,
            temperature=0.0,
            gumbel_scale=0.0,
            max_num_considered_actions=slots,
        )
    return SearchPolicy(
        policy=policy,
        reward_model=reward_model,
        leaf_value=leaf_value or PartialReward(reward_model),
        planner=build_planner(config),
        proposal=proposal,
        num_slots=slots,
        replan=method != "beam",
        batch_size=batch_size,
    )
