"""Allowed values of the settings of reward models and their data; imports nothing heavy."""

from typing import TYPE_CHECKING, Literal, get_args

OnBadRow = Literal["error", "skip"]
FORMATS: dict[str, str] = {
    "hh": "rewardmodel.data.formats.hh:FORMAT",
    "tldr": "rewardmodel.data.formats.tldr:FORMAT",
    "ultrafeedback": "rewardmodel.data.formats.ultrafeedback:FORMAT",
    "rewardbench": "rewardmodel.data.formats.rewardbench:FORMAT",
    "rewardbench2": "rewardmodel.data.formats.rewardbench:FORMAT_2",
    "qa_feedback": "rewardmodel.data.formats.qa_feedback:FORMAT",
    "scores": "rewardmodel.data.formats.ranked:SCORES",
    "rankings": "rewardmodel.data.formats.ranked:RANKINGS",
}
"""Data formats by name, and where each is defined; a new one is a module and an entry here."""
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[("auto", "plain", *FORMATS)]
ChosenFormat = Literal["auto", "text", "pair"]
CHOSEN_FORMATS: tuple[str, ...] = get_args(ChosenFormat)
Kind = Literal[
    "auto",
    "sequence",
    "process",
    "multi_head",
    "token_value",
    "implicit",
    "ensemble",
    "function",
]
KINDS: tuple[str, ...] = get_args(Kind)
Aggregate = Literal["mean", "min", "mean_minus_std", "mean_minus_variance"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
StepAggregate = Literal["min", "product", "mean", "last"]
STEP_AGGREGATES: tuple[str, ...] = get_args(StepAggregate)
SEPARATOR = "\n\n"
"""What stands between the steps of a response by default."""
