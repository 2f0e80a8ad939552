"""What a reward model is to the rest of the project."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class RewardModel(Protocol):
    """A model of the human: how good is a finished response to a prompt?"""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """Scores finished responses.

        Args:
            prompts: B prompts.
            responses: B responses, the i-th to the i-th prompt.

        Returns:
            float32 [B] on the CPU, higher is better. Only differences under one prompt mean
            something; every entry is finite.

        Raises:
            ValueError: If a score is not finite; the message names the row.
        """
        ...
