"""`prefsearch atari play`: games to look at, as GIFs, and the searches behind single decisions."""

import logging
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atari_bridge.acting.planners import eval_planner
from atari_bridge.cli.args import AtariPlayArgs
from atari_bridge.cli.train import eval_environment_config
from atari_bridge.environments.factory import open_environment
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.evaluation.episodes import PolicyOnly, SampledActions, evaluate_agent
from atari_bridge.evaluation.recording import data_address, write_gif
from atari_bridge.training.agent import Agent, load_agent
from prefsearch.progress import Bar, progress
from prefsearch.storage.files import write_json_atomic, write_text_atomic
from prefsearch.storage.visible_text import visible
from search import Planner, PlanningModel, SearchOutput
from search.viewer.file import save_tree
from search.viewer.page import NamedView, render_html
from search.viewer.view import limit_view, view_tree

logger = logging.getLogger(__name__)
_SHOWN_NODES = 400


class Recorder:
    """A planner that keeps what it was shown and, of some decisions, its searches.

    Attributes:
        frames: Of the first game, `[C, H, W]` uint8 each; vectors `[D]`.
        searches: Of the first game's chosen decisions, by number.
    """

    def __init__(self, planner: Planner, *, frame_channels: int, save_trees_at: list[int]) -> None:
        self._planner, self._channels, self._trees_at = planner, frame_channels, set(save_trees_at)
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


def play(args: AtariPlayArgs) -> None:
    """Plays, and writes GIFs, trees and scores."""
    agent = load_agent(args.checkpoint, game=args.game or None)
    out, games = Path(args.out), []
    config = eval_environment_config(agent.environment)
    for game in range(args.games):
        environment = open_environment(config, num_envs=1)
        try:
            with progress(f"game {game + 1} of {args.games}") as bar:
                games.append(_play_one(args, agent, environment, game, bar))
        finally:
            environment.close()
    write_json_atomic(out / "games.json", games)
    lines = [f"game {n + 1}: return {g['return']:g}, {g['decisions']} decisions" for n, g in
             enumerate(games)]  # fmt: skip
    sys.stdout.write(visible("\n".join([*lines, f"pictures and trees in {out}"])) + "\n")


def _play_one(
    args: AtariPlayArgs,
    agent: Agent,
    environment: VectorEnvironment,
    game: int,
    bar: Bar,
) -> dict[str, object]:
    planner: Planner
    if args.num_simulations == 0:
        planner = PolicyOnly(sample=args.sample)
    else:
        planner = eval_planner(agent.search, num_simulations=args.num_simulations)
        planner = SampledActions(planner) if args.sample else planner
    recorder = Recorder(
        planner,
        frame_channels=environment.observation_shape[0],
        save_trees_at=args.save_trees_at if game == 0 else [],
    )
    found = evaluate_agent(
        environment,
        agent.model,
        recorder,
        frame_stack=agent.environment.frame_stack,
        seed=args.seed + game,
        max_decisions=args.max_decisions,
        on_progress=lambda made, *_: bar.update(made),
    )
    out = Path(args.out)
    if recorder.frames[0].ndim == 3:
        write_gif(
            recorder.frames,
            out / f"game-{game + 1}.gif",
            frame_skip=environment.frame_skip,
            every=args.every,
        )
    else:
        logger.warning("observations are vectors: no pictures were made")
    for decision, output in recorder.searches.items():
        _keep_search(out, decision, output, recorder.frames[decision], agent, environment)
    return {"return": found.returns[0], "decisions": found.decisions[0], "seed": args.seed + game}


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
