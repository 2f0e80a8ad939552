"""EfficientZero's value prefix: an LSTM that sums rewards along an imagined line.

When exactly a reward falls is hard to foresee; how much has fallen so far is easier, and is all
that a search needs: the reward of a step is the difference of two prefixes.

Source: Ye et al. 2021 (EfficientZero), section 4.2.
"""

import torch
from torch import Tensor, nn


class ValuePrefix(nn.Module):
    """Predicts the undiscounted sum of rewards since it last began anew.

    Every row counts its own steps, so rows of a search may differ in depth.

    Args:
        reduction: Hidden states to `[B, F]`.
        features: F.
        size: L, units of the LSTM.
        horizon: Steps after which a row begins anew.
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
        """The memory of `rows` states from which nothing was imagined yet."""
        zeros = torch.zeros(rows, self.size, dtype=torch.float32, device=like.device)
        age = torch.zeros(rows, dtype=torch.int64, device=like.device)
        return {"lstm_h": zeros, "lstm_c": zeros.clone(), "age": age}

    def forward(
        self, hidden: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Goes one step on.

        Args:
            hidden: The state arrived in.
            memory: Of the state it was imagined from.

        Returns:
            Logits of the prefix `[B, bins]`; and the memory of the new state: at the horizon, that
            of a state from which nothing was imagined yet.
        """
        h, c = self.cell(self.reduction(hidden), (memory["lstm_h"], memory["lstm_c"]))
        age = (memory["age"] + 1) % self.horizon
        goes_on = (age > 0).to(torch.float32)[:, None]
        return self.head(h), {"lstm_h": h * goes_on, "lstm_c": c * goes_on, "age": age}
