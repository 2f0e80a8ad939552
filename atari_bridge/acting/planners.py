"""The planners of self-play, reanalysis and evaluation.

The three differ in noise alone: self-play and reanalysis add it, as in EfficientZero and Gumbel
MuZero; evaluation does not.
"""

from functools import partial

from atari_bridge.acting.config import SearchSettings
from prefsearch.config.bounds import Size
from search import (
    Planner,
    build_planner,
    planner_settings,
    qtransform_completed_by_mix_value,
)


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
