"""`prefsearch atari play`: games to look at, as GIFs, and the searches behind single decisions."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from atari_bridge.acting.search_settings import eval_planner
from atari_bridge.cli.train import eval_environment_config
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.environments.opening import open_environment
from atari_bridge.evaluation.episodes import PolicyOnly, SampledActions, evaluate_agent
from atari_bridge.evaluation.recording import data_address, write_gif
from atari_bridge.training.agent import Agent, load_agent
from prefsearch.cli.outputs import Output, expand_home, settle_outputs
from prefsearch.cli.overwriting import require_kept, require_outside
from prefsearch.config.bounds import Count, CountOrZero, Seed, SizeOrZero
from prefsearch.config.checks import check_types, require
from prefsearch.storage.files import write_json_atomic, write_text_atomic
from prefsearch.storage.visible_text import visible
from search import Planner, PlanningModel, SearchOutput
from search.viewer.file import save_tree
from search.viewer.page import NamedView, render_html
from search.viewer.view import limit_view, view_tree

logger = logging.getLogger(__name__)
_SHOWN_NODES = 400


@dataclass(frozen=True)
class PlayJob:
    """Play games with a trained agent and keep pictures of them and of its searches.

    Attributes:
        checkpoint: A run's folder, whose newest checkpoint is taken, or a checkpoint.
        game: Its game. Needed only for one that names a module ("module:id"), which is imported.
        out: Folder of the GIFs and trees.
        games: How many, one after another.
        num_simulations: Of a decision; null: as in training, 0: the policy alone.
        sample: Draw actions from what was found. False takes the best one, which in games without
            chance can be a rut.
        max_decisions: Games are broken off after so many; null: the environment's own limit.
        trees_at: Decisions of the first game whose searches are kept, as pages and as files.
        every: Keep one frame in so many, for smaller GIFs.
        seed: Of games and draws.
    """

    checkpoint: str = ""
    game: str = ""
    out: str = ""
    games: Count = 1
    num_simulations: SizeOrZero | None = None
    sample: bool = True
    max_decisions: Count | None = None
    trees_at: list[CountOrZero] = field(default_factory=lambda: [0, 50, 100])
    every: Count = 2
    seed: Seed = 2_000

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.checkpoint), "checkpoint", self.checkpoint, "a run, by --checkpoint")
        require(bool(self.out), "out", self.out, "a folder, by --out")
        expand_home(self, "checkpoint")
        for output in settle_outputs(self):
            require_kept({"checkpoint": self.checkpoint}, files=output.files)
        # A folder of its own inside a run is a good place; one among its checkpoints is none.
        kept = Path(self.checkpoint, "checkpoints")
        kept = kept if kept.is_dir() else Path(self.checkpoint)
        require_outside({"checkpoint": str(kept)}, self.out)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, (".", "games.json"))]


class Recorder:
    """A planner that keeps what it was shown and, of some decisions, its searches.

    Attributes:
        frames: Of the first game, `[C, H, W]` uint8 each; vectors `[D]`.
        searches: Of the first game's chosen decisions, by number.
    """

    def __init__(self, planner: Planner, *, frame_channels: int, trees_at: list[int]) -> None:
        self._planner, self._channels, self._trees_at = planner, frame_channels, set(trees_at)
        self.frames: list[np.ndarray] = []
        self.searches: dict[int, SearchOutput] = {}

    @property
    def num_simulations(self) -> int:
        """The planner's."""
        return self._planner.num_simulations

    def plan(
        self, model: PlanningModel, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SearchOutput:
        """Plans as the planner does, and keeps the first row."""
        output = self._planner.plan(model, observation, generator=generator)
        if len(self.frames) in self._trees_at and output.tree is not None:
            self.searches[len(self.frames)] = output
        newest = observation[0, -self._channels :] if observation.ndim == 4 else observation[0]
        self.frames.append(newest.numpy().copy())
        return output


def play(job: PlayJob) -> None:
    """Plays, and writes GIFs, trees and scores."""
    agent = load_agent(job.checkpoint, game=job.game or None)
    out, games = Path(job.out), []
    config = eval_environment_config(agent.environment)
    with Progress(transient=True) as progress:
        for game in range(job.games):
            environment = open_environment(config, num_envs=1)
            try:
                task = progress.add_task(f"game {game + 1} of {job.games}", total=None)
                games.append(_play_one(job, agent, environment, game, progress, task))
            finally:
                environment.close()
    write_json_atomic(out / "games.json", games)
    lines = [f"game {n + 1}: return {g['return']:g}, {g['decisions']} decisions" for n, g in
             enumerate(games)]  # fmt: skip
    sys.stdout.write(visible("\n".join([*lines, f"pictures and trees in {out}"])) + "\n")


def _play_one(
    job: PlayJob,
    agent: Agent,
    environment: VectorEnvironment,
    game: int,
    progress: Progress,
    task: object,
) -> dict[str, object]:
    planner: Planner
    if job.num_simulations == 0:
        planner = PolicyOnly(sample=job.sample)
    else:
        planner = eval_planner(agent.search, num_simulations=job.num_simulations)
        planner = SampledActions(planner) if job.sample else planner
    recorder = Recorder(
        planner,
        frame_channels=environment.observation_shape[0],
        trees_at=job.trees_at if game == 0 else [],
    )
    found = evaluate_agent(
        environment,
        agent.model,
        recorder,
        frame_stack=agent.environment.frame_stack,
        seed=job.seed + game,
        max_decisions=job.max_decisions,
        on_progress=lambda made, *_: progress.update(task, completed=made),  # pyright: ignore
    )
    out = Path(job.out)
    if recorder.frames[0].ndim == 3:
        write_gif(
            recorder.frames,
            out / f"game-{game + 1}.gif",
            frame_skip=environment.frame_skip,
            every=job.every,
        )
    else:
        logger.warning("observations are vectors: no pictures were made")
    for decision, output in recorder.searches.items():
        _keep_search(out, decision, output, recorder.frames[decision], agent, environment)
    return {"return": found.returns[0], "decisions": found.decisions[0], "seed": job.seed + game}


def _keep_search(
    out: Path,
    decision: int,
    output: SearchOutput,
    frame: np.ndarray,
    agent: Agent,
    environment: VectorEnvironment,
) -> None:
    """Writes one search as a page with the frame it began from, and as a tree file."""
    assert output.tree is not None
    tree, name = output.tree, f"{agent.facts['game']}, decision {decision}"
    moves = environment.action_meanings
    labels = {
        node: moves[action]
        for node, action in enumerate(tree.action_from_parent[0].tolist())
        if action >= 0
    }
    view = limit_view(view_tree(tree, 0, labels=labels), max_nodes=_SHOWN_NODES)
    page = render_html(
        [NamedView(name, view, picture=data_address(frame) if frame.ndim == 3 else None)],
        title=name,
        subtitle=f"{output.tree.num_nodes - 1} simulations; the picture is what the agent saw",
    )
    write_text_atomic(out / f"tree-{decision:05d}.html", page)
    path = out / f"tree-{decision:05d}.safetensors"
    save_tree(tree, path, labels=[labels], title=name, embeddings=False)
