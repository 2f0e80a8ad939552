"""Whether a run has workers, as Ray actors, that play and search old rows anew while it learns.

By default it has none: this process does everything itself, and its numbers can be reproduced bit
for bit. With play workers they cannot: which weights a game is played with depends on who is fast.

A worker that dies is replaced, with a warning that names the cause; see `remote_players` and
`remote_planner` for what that costs. Ten deaths of either kind are put up with.
"""

from atari_bridge.acting.ray_host import RayHost
from atari_bridge.acting.remote_planner import RemotePlanner
from atari_bridge.acting.remote_players import RemotePlayers
from atari_bridge.acting.search_settings import reanalysing_planner
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.training.config import AgentSettings, WorkerSettings


def build_workers(
    settings: WorkerSettings,
    agent: AgentSettings,
    network: MuZeroNetwork,
    target_network: MuZeroNetwork,
    *,
    seed: int,
    num_environments: int | None = None,
) -> tuple[RemotePlayers | None, RemotePlanner | None]:
    """The workers that settings ask for; None where this process does the work itself.

    Args:
        settings: How many.
        agent: Whom they play as.
        network: The one that learns; read when weights are sent.
        target_network: The one that reanalysis searches with; read at its first search.
        seed: Of everything random in them; differs between processes.
        num_environments: This process's; None: all that the agent has.

    Raises:
        ImportError: If workers are asked for without Ray.
        ValueError: If environments cannot be shared out evenly, or GPUs are missing.
    """
    if not settings.play_workers and not settings.reanalyze_workers:
        return None, None
    actors = settings.play_workers + settings.reanalyze_workers
    host = RayHost(actors=actors, gpus=settings.worker_gpus)
    device = "cuda" if settings.worker_gpus else "cpu"
    players = planner = None
    if settings.play_workers:
        players = RemotePlayers(
            network,
            agent,
            host=host,
            workers=settings.play_workers,
            num_environments=num_environments or agent.environment.num_environments,
            seed=seed,
            device=device,
        )
    if settings.reanalyze_workers:
        planner = RemotePlanner(
            target_network,
            reanalysing_planner(agent.search),
            host=host,
            workers=settings.reanalyze_workers,
            discount=agent.learning.discount,
            device=device,
        )
    return players, planner
