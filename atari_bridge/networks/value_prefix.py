"""EfficientZero's value prefix: an LSTM that predicts the sum of rewards along an unroll.

The sum is easier to predict than the step of each reward, and suffices for search: the reward of a
step is the difference of two prefixes.

Source: Ye et al. 2021 (EfficientZero), section 4.2.
"""

import torch
from torch import Tensor, nn


class ValuePrefix(nn.Module):
    """Predicts the undiscounted sum of rewards since the last reset.

    Each row counts its own steps, so rows of a search may differ in depth.

    Args:
        reduction: Hidden states to `[B, F]`.
        features: F.
        size: L, units of the LSTM.
        horizon: Steps after which the state is reset.
        head: `[B, L]` to `[B, bins]`.
    """

    def __init__(
        self, reduction: nn.Module, *, features: int, size: int, horizon: int, head: nn.Module
    ) -> None:
        super().__init__()
        self.reduction, self.head = reduction, head
        self.cell = nn.LSTMCell(features, size)
        self.size, self.horizon = size, horizon

    def begin(self, rows: int, *, like: Tensor) -> dict[str, Tensor]:
        """The initial LSTM state of `rows` root states."""
        zeros = torch.zeros(rows, self.size, dtype=torch.float32, device=like.device)
        age = torch.zeros(rows, dtype=torch.int64, device=like.device)
        return {"lstm_h": zeros, "lstm_c": zeros.clone(), "age": age}

    def forward(
        self, hidden: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Advances by one step.

        Args:
            hidden: The next state.
            memory: LSTM state of the state before.

        Returns:
            Logits of the prefix `[B, bins]`, and the LSTM state of the next state, which is reset
            at the horizon.
        """
        h, c = self.cell(self.reduction(hidden), (memory["lstm_h"], memory["lstm_c"]))
        age = (memory["age"] + 1) % self.horizon
        keep = (age > 0).to(torch.float32)[:, None]
        return self.head(h), {"lstm_h": h * keep, "lstm_c": c * keep, "age": age}
