"""Settings of the planner that an agent uses in self-play, reanalysis and evaluation.

The three differ in noise alone: self-play and reanalysis add it, as in EfficientZero and Gumbel
MuZero; evaluation does not.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from prefsearch.config.bounds import Fraction, Positive, Size, Within
from prefsearch.config.checks import check_types
from search import (
    Planner,
    build_planner,
    planner_name,
    planner_settings,
    qtransform_completed_by_mix_value,
)


@dataclass(frozen=True)
class SearchSettings:
    """The search's numbers.

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
    temperature: Annotated[float, Within(least=0, most=10_000)] = 1.0

    def __post_init__(self) -> None:
        """Checks types; the planners check their numbers."""
        check_types(self)
        object.__setattr__(self, "search", planner_name(self.search, setting="search"))
        self_play_planner(self, progress=0.0)
        eval_planner(self)


def self_play_planner(settings: SearchSettings, *, progress: float) -> Planner:
    """The planner of self-play, with noise.

    Args:
        settings: The numbers.
        progress: Share of the run that is done, 0 to 1.
    """
    cooled = 1.0 if progress < 0.5 else 0.5 if progress < 0.75 else 0.25
    return _build(settings, noise=1.0, temperature=settings.temperature * cooled)


def reanalyze_planner(settings: SearchSettings) -> Planner:
    """The planner that finds fresh targets for old rows: as in play, its action is not used."""
    return _build(settings, noise=1.0, temperature=0.0)


def eval_planner(settings: SearchSettings, *, num_simulations: int | None = None) -> Planner:
    """The planner of evaluation, without noise; by default with the simulations of play."""
    return _build(settings, noise=0.0, temperature=0.0, num_simulations=num_simulations)


def _build(
    settings: SearchSettings,
    *,
    noise: float,
    temperature: float,
    num_simulations: Size | None = None,
) -> Planner:
    simulations = settings.num_simulations if num_simulations is None else num_simulations
    wanted = {
        "max_num_considered_actions": settings.max_num_considered_actions,
        "gumbel_scale": noise,
        "dirichlet_fraction": noise * settings.dirichlet_fraction,
        "dirichlet_alpha": settings.dirichlet_alpha,
        "temperature": temperature,
    }
    known = planner_settings(settings.search)
    chosen = {name: value for name, value in wanted.items() if name in known}
    if known.get("qtransform") is qtransform_completed_by_mix_value:
        chosen["qtransform"] = partial(
            qtransform_completed_by_mix_value, rescale_values=settings.rescale_values
        )
    return build_planner(settings.search, simulations, **chosen)
