"""Plan over a continuous action space: brake a cart at the origin by real-valued pushes.

    python examples/continuous_actions.py

No tree can hold all real numbers. `SampledPlanner` (Sampled MuZero) searches over K actions that
it samples at each node from the model's policy, here a wide Gaussian squashed into [-1, 1].
"""

import torch
from torch import Tensor

from search import (
    Embedding,
    GaussianActions,
    GumbelMuZeroPlanner,
    SampledPlanner,
    SampledRootOutput,
    SampledStepOutput,
)

DISCOUNT = 0.97
TIME_STEP = 0.2


class Cart:
    """A cart [position, velocity] on a rail; each step costs position² + velocity² / 4."""

    def root(
        self, observation: Tensor, *, generator: torch.Generator | None = None
    ) -> SampledRootOutput:
        """Evaluates carts [B, 2]."""
        return SampledRootOutput(self._policy(observation), self._value(observation),
                                 {"cart": observation})  # fmt: skip

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> SampledStepOutput:
        """Pushes carts [M, 2] with forces [M]."""
        position, velocity = embedding["cart"].unbind(-1)
        velocity = velocity + TIME_STEP * action
        position = position + TIME_STEP * velocity
        cart = torch.stack([position, velocity], dim=-1)
        return SampledStepOutput(
            policy=self._policy(cart),
            value=self._value(cart),
            embedding={"cart": cart},
            reward=-(position.square() + velocity.square() / 4),
            discount=torch.full_like(position, DISCOUNT),
        )

    def _policy(self, cart: Tensor) -> GaussianActions:
        return GaussianActions(torch.zeros(len(cart)), torch.ones(len(cart)), low=-1.0, high=1.0)

    def _value(self, cart: Tensor) -> Tensor:
        """A rough guess: the cost where the cart would be a second later, over a few seconds."""
        position, velocity = cart.unbind(-1)
        return -8 * (position + velocity).square() - velocity.square()


def drive(cart: Tensor, *, steps: int, seed: int) -> tuple[Tensor, float]:
    """Plans each push; returns where the carts end and the mean cost of a step."""
    generator = torch.Generator().manual_seed(seed)
    planner = SampledPlanner(GumbelMuZeroPlanner(64, max_num_considered_actions=12), num_samples=12)
    model, cost = Cart(), 0.0
    for _ in range(steps):
        output = planner.plan(model, cart, generator=generator)
        step = model.step({"cart": cart}, output.action)
        cart, cost = step.embedding["cart"], cost - float(step.reward.mean())
    return cart, cost / steps


def main() -> None:
    """Drives four carts and prints where they come to rest."""
    start = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.5, -1.0], [-2.0, -0.5]])
    end, cost = drive(start, steps=40, seed=0)
    for before, after in zip(start.tolist(), end.tolist(), strict=True):
        print(f"from {before} to [{after[0]:+.2f}, {after[1]:+.2f}]")
    print(f"mean cost of a step: {cost:.3f}")


if __name__ == "__main__":
    main()
