"""Settings of the search in self-play, reanalysis and evaluation."""

from dataclasses import dataclass
from typing import Annotated

from prefsearch.config.bounds import Fraction, Positive, Size, Within
from prefsearch.config.checks import check_types
from search.planners.registry import planner_name


@dataclass(frozen=True)
class SearchSettings:
    """Planner and search hyperparameters.

    Attributes:
        search: A planner of `search.planners.registry`: "gumbel_muzero" improves the policy with
            few simulations; "muzero" is MuZero's search; "efficientzero" is PUCT as in
            EfficientZero.
        num_simulations: Simulations of a decision, in play and in reanalysis.
        max_num_considered_actions: Gumbel MuZero: actions that the root tries at first.
        rescale_values: Gumbel MuZero: bring the Q-values of a node to [0, 1] before they are
            weighed against its prior (mctx). False weighs them as they are: what hardly differs
            then hardly counts, which suits clipped rewards and models that have seen little.
        dirichlet_fraction: MuZero: share of noise in the root's prior, in play and reanalysis.
        dirichlet_alpha: MuZero: concentration of that noise.
        temperature: MuZero: actions are drawn by visits to the power of 1 / temperature; it falls
            to a half after 50 % of the run and to a quarter after 75 %.
    """

    search: str = "gumbel_muzero"
    num_simulations: Size = 16
    max_num_considered_actions: Size = 16
    rescale_values: bool = True
    dirichlet_fraction: Fraction = 0.25
    dirichlet_alpha: Positive = 0.3
    temperature: Annotated[float, Within(ge=0, le=10_000)] = 1.0

    def __post_init__(self) -> None:
        """Checks types, bounds and the planner's name."""
        check_types(self)
        object.__setattr__(self, "search", planner_name(self.search, setting="search"))
