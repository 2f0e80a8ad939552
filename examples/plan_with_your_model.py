"""Plan with a model of your own: a maze, three walkers in one batch.

    python examples/plan_with_your_model.py

A planning model answers two calls: `root` evaluates observations, `step` takes actions from nodes
that it recognizes by their embedding. Here the model is exact; a network takes the same place.
"""

import torch
from torch import Tensor

from search import (
    Embedding,
    GumbelMuZeroPlanner,
    PlanningModel,
    RootOutput,
    StepOutput,
)

MAZE = """
#########
#.......#
#.###.#.#
#.#...#.#
#.#.###.#
#...#..G#
#########
""".splitlines()[1:]
MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])
ARROWS = "↑→↓←"
DISCOUNT = 0.95


class Maze:
    """Four moves in a maze; reaching G earns 1 and ends the episode."""

    num_actions = 4

    def __init__(self) -> None:
        """Reads the map."""
        self.free = torch.tensor([[cell != "#" for cell in row] for row in MAZE])
        goal = next((y, row.index("G")) for y, row in enumerate(MAZE) if "G" in row)
        self.goal = torch.tensor(goal)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Evaluates places [B, 2]."""
        logits, value, valid = self._evaluate(observation)
        return RootOutput(logits, value, valid, {"place": observation})

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Moves from places [M, 2] by actions [M]."""
        place = embedding["place"] + MOVES[action]
        done = (place == self.goal).all(-1)
        logits, value, valid = self._evaluate(place)
        return StepOutput(
            prior_logits=logits,
            value=value,
            valid_actions=valid,
            embedding={"place": place},
            reward=done.float(),
            discount=torch.where(done, 0.0, DISCOUNT),
        )

    def _evaluate(self, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform priors, a value that grows towards the goal, and the moves that hit no wall."""
        after = place[:, None] + MOVES  # [M, 4, 2]
        valid = self.free[after[..., 0], after[..., 1]]
        distance = (place - self.goal).abs().sum(-1)
        return torch.zeros(valid.shape), DISCOUNT ** distance.float(), valid


def walk(model: PlanningModel, start: Tensor, *, num_simulations: int) -> list[str]:
    """Plans each step of several walkers in one batch until all are at the goal."""
    planner = GumbelMuZeroPlanner(num_simulations, gumbel_scale=0.0)
    place, paths = start, ["" for _ in start]
    alive = torch.arange(len(start))
    while len(alive):
        output = planner.plan(model, place[alive])
        step = model.step({"place": place[alive]}, output.action)
        for row, action in zip(alive.tolist(), output.action.tolist(), strict=True):
            paths[row] += ARROWS[action]
        place[alive] = step.embedding["place"]
        alive = alive[step.discount > 0]
    return paths


def main() -> None:
    """Walks from three corners and prints the paths."""
    model, start = Maze(), torch.tensor([[1, 1], [5, 1], [5, 5]])
    for corner, path in zip(start.tolist(), walk(model, start, num_simulations=200), strict=True):
        print(f"from {corner}: {path}")


if __name__ == "__main__":
    main()
