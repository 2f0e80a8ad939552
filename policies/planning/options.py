"""Search methods on text by name, and their options.

The budget of a method is what is tried at a decision; see `policies.planning.methods`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from prefsearch.config.bounds import Count, KLWeight, NonNegative, Positive, PositiveFraction, Size
from prefsearch.config.checks import check_types, require, shown
from rewardmodel.models.answers import extract_answer
from search.planners.registry import ALIASES, PLANNER_NAMES

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
BEAM_PROPOSALS = 4
"""Segments that each beam tries."""


@dataclass(frozen=True)
class SearchOptions:
    """Options shared by all search methods.

    Attributes:
        num_proposals: Tree search: proposals of a node, at most the budget; null takes 8.
        leaves_per_step: Tree search: leaves of each tree that go through the models at once. More
            is faster on large models and searches a little less well.
        c_puct: muzero: the weight of exploration, c1 of its rule; null takes the planner's default
            for ranked tokens and 10 for samples, whose prior is uniform.
        value_scale: gumbel_muzero: weight of values against the prior, per visit of a node's most
            visited proposal; more follows the best one found so far sooner and tries the others
            later. Null takes the planner's default for ranked tokens and
            log(1 + budget) / (2 * budget) for samples.
        maxvisit_init: gumbel_muzero: visits added to those that value_scale multiplies: the product
            of both is what values weigh at a new node. Null takes the planner's default for ranked
            tokens, and for samples what gives the best of K proposals odds of 1 + 8 K / budget to 1
            there against all others together.
        token_budget: The most tokens sampled for a prompt, at least max_new_tokens; null sets no
            limit (in searches by levels, that of budget whole responses).
        answer_form: Votes and references: how an answer is read from a response: "gsm8k", what
            follows the last ####; "boxed"; "number", the last one; "auto", the first of these that
            is there; "regex:PATTERN", the one group of the last match.
        kl_weight: Controlled decoding: cost of one nat of divergence from the policy; less follows
            the reward model further.
        rejection_keep: Speculative rejection: the share of responses that goes on after each
            segment; null takes the planner's default.
        search_batch_size: Prompts searched together. It decides what is done between two saves of
            a run and what each process does; results of one size repeat exactly.
        max_rows: The most responses or segments that are sampled together; lower it where memory is
            short.
    """

    num_proposals: Size | None = None
    leaves_per_step: Size = 1
    c_puct: NonNegative | None = None
    # At 0 samples, whose prior is uniform, would all be alike whatever their values.
    value_scale: Positive | None = None
    maxvisit_init: NonNegative | None = None
    token_budget: Count | None = None
    answer_form: str = "auto"
    kl_weight: KLWeight = 0.3
    rejection_keep: PositiveFraction | None = None
    search_batch_size: Size = 64
    max_rows: Size = 256

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        extract_answer("", self.answer_form)  # refuses a form that does not exist
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
    """The name of a search's random stream; two methods keep the names that runs recorded."""
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
    if method in ("beam", "dvts") and budget > BEAM_PROPOSALS and budget % BEAM_PROPOSALS:
        raise ValueError(
            f"budget: found {budget} for {TITLES[method]}; required: at most {BEAM_PROPOSALS}, or "
            f"a multiple of {BEAM_PROPOSALS}, the segments that each beam tries"
        )
