"""Search methods on text by name, and their options.

The budget of a method is what is tried at a decision; see `policies.planning.methods`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from prefsearch.config.bounds import Count, KLWeight, NonNegative, Positive, PositiveFraction, Size
from prefsearch.config.checks import check_types, require
from rewardmodel.models.answers import extract_answer

MethodName = Literal[
    "best_of_n", "weighted", "majority", "rejection", "beam", "dvts", "muzero", "gumbel", "guided"
]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
TITLES: dict[str, str] = {
    "best_of_n": "best-of-N",
    "weighted": "weighted best-of-N",
    "majority": "majority vote",
    "rejection": "speculative rejection",
    "beam": "beam search",
    "dvts": "DVTS",
    "muzero": "MCTS (MuZero)",
    "gumbel": "MCTS (Gumbel)",
    "guided": "guided decoding",
}
POOLED: tuple[MethodName, ...] = ("best_of_n", "weighted", "majority")
"""Methods that choose among whole responses, all of them samples of the policy."""
BEAM_SLOTS = 4
"""Segments that each beam tries."""


@dataclass(frozen=True)
class SearchOptions:
    """How methods search, beside their budgets.

    Attributes:
        leaves_per_step: Tree search: leaves of each tree that go through the models at once. More
            is faster on large models and searches a little less well.
        exploration: muzero: how much a slot counts that was tried little (c1 of its rule); null
            takes 1.25 for ranked tokens and 10 for samples, whose prior is uniform.
        value_scale: gumbel: weight of values against the prior, per visit of a node's most visited
            slot; more follows the best slot found so far sooner and tries the others later. Null
            takes 0.1 for ranked tokens and log(1 + budget) / (2 * budget) for samples.
        maxvisit_init: gumbel: visits added to those that value_scale multiplies: the product of
            both is what values weigh at a new node. Null takes 50 for ranked tokens, and for
            samples what gives the best of K slots odds of 1 + 8 K / budget to 1 there against all
            others together.
        token_budget: The most tokens sampled for a prompt, at least max_new_tokens; null sets no
            limit (in searches by levels, that of budget whole responses).
        answer_form: Votes and references: how an answer is read from a response: "gsm8k", what
            follows the last ####; "boxed"; "number", the last one; "auto", the first of these that
            is there; "regex:PATTERN", the one group of the last match.
        kl_weight: Guided decoding: what a nat from the policy costs; less follows the reward model
            further.
        rejection_keep: Speculative rejection: the share of responses that goes on after each
            segment.
        search_batch_size: Prompts searched side by side. It decides what is done between two saves
            of a run and what each process does; results of one size repeat exactly.
        max_rows: The most responses or segments that are sampled side by side; lower it where
            memory is short.
    """

    leaves_per_step: Size = 1
    exploration: NonNegative | None = None
    # At 0 samples, whose prior is uniform, would all be alike whatever their values.
    value_scale: Positive | None = None
    maxvisit_init: NonNegative | None = None
    token_budget: Count | None = None
    answer_form: str = "auto"
    kl_weight: KLWeight = 0.3
    rejection_keep: PositiveFraction = 0.5
    search_batch_size: Size = 64
    max_rows: Size = 256

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        extract_answer("", self.answer_form)  # refuses a form that does not exist
        scale = self.value_scale  # maxvisit_init is divided by it
        require(scale is None or scale >= 1e-9, "value_scale", scale, "at least 1e-9, or null")


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
    if method in ("beam", "dvts") and budget > BEAM_SLOTS and budget % BEAM_SLOTS:
        raise ValueError(
            f"budget: found {budget} for {TITLES[method]}; required: at most {BEAM_SLOTS}, or a "
            f"multiple of {BEAM_SLOTS}, the segments that each beam tries"
        )
