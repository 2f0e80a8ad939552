"""Plays Atari games by planning with the emulator itself, beside greedy and random play.

    python benchmarks/atari/true_simulator.py                       # all games below, seeds 1 2 3
    python benchmarks/atari/true_simulator.py --games Boxing --seeds 1

Each cell is one episode, in one of `--workers` processes of one thread each. Finished cells are
written at once to `--out`; a run that was stopped continues, and cells whose settings or source
files have changed are played again. Settings were
chosen on seeds 100 and above. Scores are raw; human-normalized ones put a random policy at 0 and a
human at 1, by published scores of play at 4 frames a decision, where ours may differ (see each
cell's `frame_skip`). No model is learned: the scores are an upper reference for planning.
"""

import json
import multiprocessing
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from rich.table import Table

from atari_bridge.reference.scores import human_normalized, human_score, random_score
from benchmarks.atari.emulator import AtariSimulator
from benchmarks.atari.true_planning import (
    HeldRollouts,
    TrueEpisode,
    play_at_random,
    play_by_planning,
    play_greedily,
)
from benchmarks.harness.provenance import same_sources
from benchmarks.harness.results import Results, benchmark_parser, table, wide_console
from benchmarks.harness.worker import Json
from search import GumbelMuZeroPlanner

NAME = "atari_true_simulator"
PLAYERS = ("planning", "greedy", "random")


@dataclass(frozen=True)
class Settings:
    """How one game is played; the two baselines share the frame skip and the bound.

    Attributes:
        frame_skip: Emulator frames a decision.
        max_decisions: Where an episode is stopped.
        num_simulations: A decision.
        rollout_steps: Decisions of the rollout that values a leaf.
        rollout_hold: Most decisions that a rollout holds one action.
        discount: A decision.
        life_cost: Points that planning subtracts for a lost life.
        goal: The score to reach.
    """

    goal: float
    max_decisions: int
    life_cost: float = 0.0
    frame_skip: int = 10
    num_simulations: int = 20
    rollout_steps: int = 6
    rollout_hold: int = 2
    discount: float = 0.99


GAMES: Mapping[str, Settings] = {
    # 100 points are a knock-out, the most there is.
    "Boxing": Settings(goal=100.0, max_decisions=1000),
    # Twice a human's score.
    "Assault": Settings(goal=1484.0, max_decisions=800, life_cost=200.0),
    # More than twice the best agent in `atari_bridge.reference`; a human scores 6952.
    "MsPacman": Settings(
        goal=5000.0, max_decisions=600, life_cost=500.0, num_simulations=30, rollout_steps=5
    ),
}


def play(game: str, player: str, seed: int) -> Json:
    """One cell: an episode of a game."""
    torch.set_num_threads(1)
    settings = GAMES[game]
    simulator = AtariSimulator(game, frame_skip=settings.frame_skip, life_cost=settings.life_cost)
    if player == "planning":
        episode = play_by_planning(
            simulator,
            GumbelMuZeroPlanner(settings.num_simulations, gumbel_scale=0.0),
            evaluator=HeldRollouts(
                simulator,
                max_steps=settings.rollout_steps,
                max_hold=settings.rollout_hold,
                discount=settings.discount,
            ),
            discount=settings.discount,
            seed=seed,
            max_decisions=settings.max_decisions,
        )
    else:
        plain = play_greedily if player == "greedy" else play_at_random
        episode = plain(simulator, seed=seed, max_decisions=settings.max_decisions)
    return cell_of(game, player, settings, episode)


def cell_of(game: str, player: str, settings: Settings, episode: TrueEpisode) -> Json:
    """One episode as JSON."""
    return {
        "game": game,
        "player": player,
        "seed": episode.seed,
        "settings": asdict(settings),
        "score": episode.score,
        "human_normalized": round(human_normalized(game, episode.score), 3),
        "decisions": episode.decisions,
        "frames": episode.frames,
        "planning_frames": episode.planning_frames,
        "seconds": round(episode.seconds, 1),
        "cpu_seconds": round(episode.cpu_seconds, 1),
        "ended": episode.ended,
        # One letter a decision (A is action 0): with the seed they replay the episode.
        "actions": "".join(chr(ord("A") + action) for action in episode.actions),
    }


def summarize(cells: Sequence[Json]) -> list[Json]:
    """One row for each game and player: mean and range of the score over seeds, and the cost."""
    rows: list[Json] = []
    for game in dict.fromkeys(cell["game"] for cell in cells):
        for player in PLAYERS:
            found = [c for c in cells if (c["game"], c["player"]) == (game, player)]
            if not found:
                continue
            scores = [c["score"] for c in found]
            rows.append(
                {
                    "game": game,
                    "player": player,
                    "seeds": len(found),
                    "score": round(statistics.fmean(scores), 1),
                    "score_range": [min(scores), max(scores)],
                    "human_normalized": round(human_normalized(game, statistics.fmean(scores)), 3),
                    "published_random": random_score(game),
                    "published_human": human_score(game),
                    "goal": GAMES[game].goal,
                    "goal_reached": sum(score >= GAMES[game].goal for score in scores),
                    "games_over": sum(c["ended"] for c in found),
                    **{
                        f"mean_{key}": round(statistics.fmean(c[key] for c in found), 1)
                        for key in ("frames", "planning_frames", "seconds", "cpu_seconds")
                    },
                }
            )
    return rows


def summary_table(rows: Sequence[Json]) -> Table:
    """The summary for the terminal."""
    lines = [
        [
            row["game"],
            row["player"],
            str(row["seeds"]),
            f"{row['score']:g}",
            "{:g} to {:g}".format(*row["score_range"]),
            f"{row['human_normalized']:.2f}",
            f"{row['mean_planning_frames']:,.0f}",
            f"{row['mean_seconds']:.0f}",
        ]
        for row in rows
    ]
    columns = ("game", "player", "seeds", "score", "range", "human-norm.", "frames", "seconds")
    return table("Mean scores over seeds", columns, lines)


def kept_cells(out: Path) -> list[Json]:
    """Cells of an earlier run whose settings and source files are the current ones."""
    if not out.exists():
        return []
    earlier = json.loads(out.read_text(encoding="utf-8"))
    cells: list[Json] = earlier["cells"] if same_sources(earlier, NAME) else []
    return [
        cell
        for cell in cells
        if cell["game"] in GAMES and cell["settings"] == asdict(GAMES[cell["game"]])
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Plays what is missing and writes each cell as it ends."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    console = wide_console()
    cells = kept_cells(options.out)
    done = {(c["game"], c["player"], c["seed"]) for c in cells}
    # The long ones first.
    wanted = [key for key in product(options.games, PLAYERS, options.seeds) if key not in done]
    wanted.sort(key=lambda key: PLAYERS.index(key[1]))
    file = Results(NAME, arguments, options.out, seeds=options.seeds)
    # Spawned: a forked child would inherit torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        running = [pool.submit(play, *key) for key in wanted]
        for number, finished in enumerate(as_completed(running), start=1):
            cell = finished.result()
            cells.append(cell)
            cells.sort(key=lambda c: (c["game"], PLAYERS.index(c["player"]), c["seed"]))
            summary = {"summary": summarize(cells), "cells": cells}
            file.write({"workers": options.workers, **summary})
            console.print(
                f"{number}/{len(wanted)} {cell['game']} {cell['player']} seed {cell['seed']}: "
                f"{cell['score']:g} in {cell['seconds']:.0f} s"
            )
    file.publish()
    console.print(summary_table(summarize(cells)))


if __name__ == "__main__":
    main()
