"""Settings of the search in self-play, reanalysis and evaluation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from prefsearch.config.bounds import Fraction, Positive, Size, Within
from prefsearch.config.checks import check_types

SearchName = Literal["gumbel", "puct", "efficientzero"]


@dataclass(frozen=True)
class SearchSettings:
    """The search's numbers.

    Attributes:
        search: "gumbel" improves the policy with few simulations (Gumbel MuZero); "puct" is
            MuZero's search; "efficientzero" is PUCT as EfficientZero's own tree does it.
        num_simulations: Simulations of a decision, in play and in reanalysis.
        considered_actions: gumbel: actions that the root tries at first.
        rescale_values: gumbel: bring the Q-values of a node to [0, 1] before they are weighed
            against its prior (mctx). False weighs them as they are: what hardly differs then hardly
            counts, which suits clipped rewards and models that have seen little.
        dirichlet_fraction: puct: share of noise in the root's prior, in play and reanalysis.
        dirichlet_alpha: puct: concentration of that noise.
        temperature: puct: actions are drawn by visits to the power of 1 / temperature; it falls to
            a half after 50 % of the run and to a quarter after 75 %.
    """

    search: SearchName = "gumbel"
    num_simulations: Size = 16
    considered_actions: Size = 16
    rescale_values: bool = True
    dirichlet_fraction: Fraction = 0.25
    dirichlet_alpha: Positive = 0.3
    temperature: Annotated[float, Within(least=0, most=10_000)] = 1.0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
