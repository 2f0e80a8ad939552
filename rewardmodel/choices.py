"""Allowed values of the settings of reward models and their data; imports nothing heavy."""

from typing import Literal, get_args

OnBadRow = Literal["error", "skip"]
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
