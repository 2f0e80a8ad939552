"""Settings of every command that reads preference pairs: which columns hold what."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rewardmodel.data.rows import ColumnUse, name_columns


@dataclass
class ColumnSettings:
    """Which columns of the dataset hold what.

    Attributes:
        prompt_column: The prompt's column, or several joined by "+", such as instruction+input.
        chosen_column: The preferred reply's column.
        rejected_column: The other reply's column.
        probability_column: The column of the probability that chosen is the better reply; null
            takes chosen_probability where there is one.
        implicit_prompt: Take the beginning that chosen and rejected share for the prompt, in plain
            text without turn markers, too.
    """

    # How the loaders' keyword arguments are given to a command where the name is another.
    FLAGS = MappingProxyType({"tokenizer": "model", "column": "prompt_column"})

    prompt_column: str = "prompt"
    chosen_column: str = "chosen"
    rejected_column: str = "rejected"
    probability_column: str | None = None
    implicit_prompt: bool = False

    def columns(self) -> dict[str, Any]:
        """The keyword arguments of `load_preferences`."""
        return {
            "prompt_column": self.prompt_column,
            "chosen_column": self.chosen_column,
            "rejected_column": self.rejected_column,
            "probability_column": self.probability_column,
            "implicit_prompt": self.implicit_prompt,
        }


def describe_unused(columns: ColumnUse) -> str:
    """One line on what was not used, or an empty text."""
    return f"Not used: {name_columns(columns.unused)}" if columns.unused else ""
