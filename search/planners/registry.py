"""A planner as plain values, for YAML files and command lines.

This file knows every planner, so that no other file has to: the name of the algorithm stops here.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, get_args

from prefsearch.config.bounds import (
    Fraction,
    KLWeight,
    NonNegative,
    Positive,
    PositiveFraction,
    Size,
    Within,
)
from prefsearch.config.checks import check_types
from search.mcts import Backend
from search.planners.base import Planner, require_choice, require_float, require_int
from search.planners.beam import BeamPlanner
from search.planners.best_of_n import BestOfNPlanner
from search.planners.diverse_beam import DiverseBeamPlanner
from search.planners.gumbel import GumbelMuZeroPlanner
from search.planners.muzero import MuZeroMode, MuZeroPlanner, require_puct_numbers
from search.planners.regularized import RegularisedPlanner
from search.planners.rejection import RejectionPlanner
from search.qtransforms import QTransform, qtransform_completed_by_mix_value

PlannerName = Literal["muzero", "gumbel", "best_of_n", "beam", "dvts", "rejection", "regularized"]


@dataclass(frozen=True)
class PlannerConfig:
    """Which planner, and its numbers; those of other planners are checked and then ignored.

    Attributes and their ranges are those of `MuZeroPlanner`, `GumbelMuZeroPlanner`,
    `BestOfNPlanner`, `BeamPlanner`, `DiverseBeamPlanner` (`dvts`), `RejectionPlanner` and
    `RegularisedPlanner`; `value_scale` and `maxvisit_init` are those of
    `qtransform_completed_by_mix_value`, Gumbel MuZero's transform. One default differs: a
    `regularized` planner built here samples its action, as `temperature` is 1.

    Raises:
        ValueError: If a value has the wrong type or is out of range, naming what was found, what
            is required and the remedy. (YAML loaders bypass annotations.)
    """

    planner: PlannerName = field(
        default="gumbel",
        metadata={
            "help": "Which planner to use. dvts: diverse verifier tree search, like beam but in "
            "subtrees that keep one candidate each; rejection: best-of-N that drops poor lines on "
            "the way; regularized: one step, priors tilted by Q."
        },
    )
    num_simulations: Annotated[int, Within(least=1, most=2**48)] = field(
        default=50, metadata={"help": "Budget: model steps per root."}
    )
    max_depth: Size | None = field(default=None, metadata={"help": "Deepest leaf; none: no limit."})
    dirichlet_fraction: Fraction = field(
        default=0.25, metadata={"help": "muzero: root noise share."}
    )
    dirichlet_alpha: Positive = field(
        default=0.3, metadata={"help": "muzero: noise concentration."}
    )
    pb_c_init: NonNegative = field(
        default=1.25, metadata={"help": "muzero: c1, weight of the prior."}
    )
    pb_c_base: Annotated[float, Within(above=0, most=10**12)] = field(
        default=19652.0, metadata={"help": "muzero: c2, when c1 grows."}
    )
    temperature: Annotated[float, Within(least=0, most=10_000)] = field(
        default=1.0, metadata={"help": "muzero, regularized: of the action drawn; 0: argmax."}
    )
    mode: MuZeroMode = field(default="mctx", metadata={"help": "muzero: mctx or efficientzero."})
    value_delta_max: Positive = field(
        default=0.01, metadata={"help": "efficientzero: least span Q-values are scaled by."}
    )
    max_num_considered_actions: Size = field(
        default=16, metadata={"help": "gumbel: root actions in the first round."}
    )
    gumbel_scale: NonNegative = field(
        default=1.0, metadata={"help": "gumbel: root noise; 0: none."}
    )
    value_scale: NonNegative = field(
        default=0.1,
        metadata={
            "help": "gumbel: weight of Q-values against the prior; more follows the best action "
            "found so far sooner, and tries the others later or never."
        },
    )
    maxvisit_init: Annotated[float, Within(least=0, most=10**12)] = field(
        default=50.0,
        metadata={
            "help": "gumbel: visits added to a node's most visited action before value_scale "
            "multiplies them; what Q-values weigh at a new node is the product of both."
        },
    )
    beam_width: Size = field(
        default=4, metadata={"help": "beam: candidates kept per depth, all competing for places."}
    )
    num_subtrees: Size = field(
        default=4, metadata={"help": "dvts: independent greedy searches below each root."}
    )
    subtree_width: Size = field(
        default=4, metadata={"help": "dvts: candidates a subtree tries per depth, keeping one."}
    )
    num_lines: Size = field(
        default=16, metadata={"help": "rejection: lines begun, each followed action by action."}
    )
    keep: PositiveFraction = field(
        default=0.5, metadata={"help": "rejection: share of the unfinished lines that goes on."}
    )
    kl_weight: KLWeight = field(
        default=0.1,
        metadata={"help": "regularized: price of leaving the prior; small: best Q, large: prior."},
    )
    leaves_per_step: Size = field(
        default=1, metadata={"help": "muzero, gumbel: leaves a tree and call of the model."}
    )
    backend: Backend = field(
        default="auto", metadata={"help": "muzero, gumbel: auto, torch, numba or triton."}
    )

    def __post_init__(self) -> None:
        """Validates every value and type, also those the chosen planner does not read."""
        owner = type(self).__name__
        require_choice(owner, "planner", self.planner, choices=get_args(PlannerName))
        require_puct_numbers(self)
        require_choice(owner, "mode", self.mode, choices=get_args(MuZeroMode))
        require_float(owner, "value_delta_max", self.value_delta_max, above=True)
        require_int(owner, "max_num_considered_actions", self.max_num_considered_actions, minimum=1)
        require_float(owner, "gumbel_scale", self.gumbel_scale)
        require_float(owner, "value_scale", self.value_scale)
        require_float(owner, "maxvisit_init", self.maxvisit_init)
        require_int(owner, "beam_width", self.beam_width, minimum=1)
        require_int(owner, "num_subtrees", self.num_subtrees, minimum=1)
        require_int(owner, "subtree_width", self.subtree_width, minimum=1)
        require_int(owner, "num_lines", self.num_lines, minimum=1)
        require_float(owner, "keep", self.keep, maximum=1.0, above=True)
        require_float(owner, "kl_weight", self.kl_weight, above=True)
        check_types(self)  # the upper bounds, which planners do not have


def build_planner(config: PlannerConfig) -> Planner:
    """Builds the planner a configuration names; `gumbel` scales Q-values by its numbers."""
    match config.planner:
        case "muzero":
            return MuZeroPlanner(
                config.num_simulations,
                max_depth=config.max_depth,
                dirichlet_fraction=config.dirichlet_fraction,
                dirichlet_alpha=config.dirichlet_alpha,
                pb_c_init=config.pb_c_init,
                pb_c_base=config.pb_c_base,
                temperature=config.temperature,
                mode=config.mode,
                value_delta_max=config.value_delta_max,
                leaves_per_step=config.leaves_per_step,
                backend=config.backend,
            )
        case "gumbel":
            return GumbelMuZeroPlanner(
                config.num_simulations,
                max_depth=config.max_depth,
                max_num_considered_actions=config.max_num_considered_actions,
                gumbel_scale=config.gumbel_scale,
                qtransform=_completing_qtransform(config),
                leaves_per_step=config.leaves_per_step,
                backend=config.backend,
            )
        case "best_of_n":
            return BestOfNPlanner(config.num_simulations)
        case "beam":
            return BeamPlanner(
                config.num_simulations, beam_width=config.beam_width, max_depth=config.max_depth
            )
        case "dvts":
            return DiverseBeamPlanner(
                config.num_simulations,
                num_subtrees=config.num_subtrees,
                subtree_width=config.subtree_width,
                max_depth=config.max_depth,
            )
        case "rejection":
            return RejectionPlanner(
                config.num_simulations, num_lines=config.num_lines, keep=config.keep
            )
        case "regularized":
            return RegularisedPlanner(
                config.num_simulations,
                kl_weight=config.kl_weight,
                temperature=config.temperature,
            )


def _completing_qtransform(config: PlannerConfig) -> QTransform:
    """Gumbel MuZero's transform with the configured numbers; the function itself where default."""
    found = {"value_scale": config.value_scale, "maxvisit_init": config.maxvisit_init}
    if found.items() <= (qtransform_completed_by_mix_value.__kwdefaults__ or {}).items():
        return qtransform_completed_by_mix_value  # so that planners built alike compare equal
    return partial(qtransform_completed_by_mix_value, **found)
