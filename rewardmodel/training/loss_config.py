"""`LossConfig`: the loss of a reward model, and the layout of its batches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from prefsearch.config.bounds import NonNegative, Within
from prefsearch.config.checks import check_types

Ties = Literal["half", "rao_kupper", "drop"]
RANKING_LOSSES = {
    "plackett_luce": "rewardmodel.training.losses:plackett_luce_loss",
    "all_pairs": "rewardmodel.training.losses:all_pairs_loss",
}
"""Losses of rankings by name; a new one is a function of the same arguments and an entry here."""
if TYPE_CHECKING:
    Rankings = str
else:
    Rankings = Literal[tuple(RANKING_LOSSES)]
Layout = Literal["auto", "prefix", "packed", "plain"]


@dataclass
class LossConfig:
    """The loss of a reward model, and the layout of its batches.

    Attributes:
        ties: The loss of ties. "half": cross entropy against one half; "rao_kupper": the tie of Rao
            and Kupper's model, whose cost is flat around equal scores; "drop": none, they are left
            out and counted.
        tie_threshold: Score lead within which rao_kupper expects ties; more than 0.
        label_smoothing: Share of the labels assumed to be wrong, in [0, 0.5).
        center_rewards_coefficient: Weight of the squared sum of a pair's scores, which keeps them
            around zero; null for none.
        rankings: How a ranking of K responses is learned: as one Plackett-Luce draw, or as all its
            pairs, each with the same weight and together that of one pair.
        heads: Heads on one backbone, an ensemble that measures uncertainty; 1 for a plain model.
        head_bootstrap: Train each of several heads on its own resample of the data.
        layout: How a prompt and its responses are computed. "prefix": the prompt once, in a pass of
            its own; "packed": the prompt once, several pairs in one row behind a mask, no padding;
            "plain": every response with its prompt. "auto" takes the first that the model supports.
        pack_tokens: Tokens in a row of the packed layout, or as many as the longest pair of the
            batch, if that is more. Attention covers whole rows.
        group_by_length: Put pairs of similar length into one batch, which reduces padding.
    """

    ties: Ties = "half"
    tie_threshold: Annotated[float, Within(gt=0, le=1_000)] = 0.5
    label_smoothing: Annotated[float, Within(ge=0, lt=0.5)] = 0.0
    center_rewards_coefficient: NonNegative | None = None
    rankings: Rankings = "plackett_luce"
    heads: Annotated[int, Within(ge=1, le=4096)] = 1
    head_bootstrap: bool = True
    layout: Layout = "auto"
    pack_tokens: Annotated[int, Within(ge=8, le=2**24, unit="tokens")] = 256
    group_by_length: bool = True

    def __post_init__(self) -> None:
        """Checks types and bounds.

        Raises:
            ValueError: Naming the key, the value found and what is required.
        """
        check_types(self)
