"""Plan where chance has a part: one turn of the dice game Pig.

    python examples/game_of_chance.py

Roll to add the die to the turn's total, hold to take the total; a 1 loses it. Stochastic MuZero's
search alternates actions with chance outcomes. On average a roll pays below a total of 20; close to
it the two differ by less than so few simulations resolve.
"""

import torch
from torch import Tensor

from search import (
    AfterstateOutput,
    Embedding,
    RootOutput,
    StepOutput,
    StochasticMuZeroPlanner,
)

ROLL, HOLD = 0, 1


class Pig:
    """States are the turn's total [M]; outcomes are the faces of the die."""

    num_actions = 2
    num_outcomes = 6

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """Evaluates totals [B]."""
        logits, valid = torch.zeros(len(observation), 2), torch.ones(len(observation), 2).bool()
        return RootOutput(logits, observation.float(), valid, {"total": observation})

    def step_action(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> AfterstateOutput:
        """Decides to roll or to hold; the die comes after."""
        total = embedding["total"]
        rolled = (5 * total + 20) / 6  # a 1 loses the total, 2 to 6 add 4 on average
        value = torch.where(action == ROLL, rolled, total.float())
        return AfterstateOutput(
            chance_logits=torch.zeros(len(total), 6),
            value=value,
            embedding={"total": total, "action": action},
        )

    def step_outcome(
        self, embedding: Embedding, outcome: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Throws the die; holding takes the total whatever it shows."""
        total, holds = embedding["total"], embedding["action"] == HOLD
        over = holds | (outcome == 0)
        after = torch.where(over, total, total + outcome + 1)
        return StepOutput(
            prior_logits=torch.zeros(len(total), 2),
            value=after.float(),
            valid_actions=torch.ones(len(total), 2).bool(),
            embedding={"total": after},
            reward=torch.where(holds, total, 0).float(),
            discount=(~over).float(),
        )


def decide(totals: list[int], *, num_simulations: int) -> list[str]:
    """What to do at each total."""
    planner = StochasticMuZeroPlanner(
        num_simulations, pb_c_init=10.0, dirichlet_fraction=0.0, temperature=0.0
    )
    output = planner.plan(Pig(), torch.tensor(totals))
    return ["hold" if action == HOLD else "roll" for action in output.action.tolist()]


def main() -> None:
    """Prints the decision at some totals."""
    totals = [0, 5, 10, 15, 18, 22, 25, 30]
    for total, decision in zip(totals, decide(totals, num_simulations=1000), strict=True):
        print(f"{total:2d} points: {decision}")


if __name__ == "__main__":
    main()
