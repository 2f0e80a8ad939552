"""Numeric bounds in type hints of settings: `Annotated[float, Within(above=0)]`.

Upper bounds are far beyond what is of use: they refuse what no machine could hold or
finish, and slips of the keyboard.
"""

import math
from dataclasses import dataclass
from typing import Annotated

FAR = 1e6
"""The upper bound of numbers that have none of their own, such as weights."""


@dataclass(frozen=True)
class Within:
    """Numeric bounds; NaN and infinities are always out of bounds.

    Attributes:
        least: The least number allowed; None where `above` is given.
        above: The number must be more than this; None where `least` is given.
        most: The greatest number allowed; None where `below` is given.
        below: The number must be less than this; None where `most` is given.
        unit: What is counted, for messages.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    unit: str = ""

    @property
    def closed(self) -> bool:
        """Whether there is a lower and an upper bound."""
        low = self.least is not None or self.above is not None
        return low and (self.most is not None or self.below is not None)

    def holds(self, value: float) -> bool:
        """Whether a number lies within the bounds."""
        return (
            -math.inf < value < math.inf
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def describe(self, otherwise: str = "") -> str:
        """Describes the bounds, for messages and `--help`.

        Args:
            otherwise: What may stand instead of a number, such as "null".
        """
        unit = f" {self.unit}" if self.unit else ""
        other = f", or {otherwise}" if otherwise else ""
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if low is not None and high is not None and low >= 0 and high <= 1:
            left = "[" if self.above is None else "("
            right = "]" if self.below is None else ")"
            return f"in {left}{low:g}, {high:g}{right}{other}"
        if self.above is not None:
            lower = f"more than {_number(self.above)}{unit}"
        elif self.least is None:
            lower = "a finite number"
        elif self.least == 0:
            lower = f"0 or more{unit}"
        else:
            lower = f"at least {_number(self.least)}{unit}"
        if high is None:
            return f"{lower}{other}"
        upper = "at most" if self.below is None else "less than"
        return f"{lower}{other} ({upper} {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


ANY_TEXT = "any text"
ModelText = Annotated[str, ANY_TEXT]
"""Text that a model may write, NUL included; other texts may be names of files."""
Seed = Annotated[int, Within(least=0, most=2**32 - 1)]
"""What torch, numpy and Python all take."""
Rows = Annotated[int, Within(least=1, most=10**12)]
"""Rows of a dataset."""
Count = Annotated[int, Within(least=1, most=10**9)]
"""How often something is done, or how many there are, one after another."""
CountOrZero = Annotated[int, Within(least=0, most=10**9)]
Size = Annotated[int, Within(least=1, most=2**20)]
"""What is held in memory at a time: a batch, a width, a depth."""
SizeOrZero = Annotated[int, Within(least=0, most=2**20)]
Tokens = Annotated[int, Within(least=1, most=2**24)]
"""Tokens of a text."""
Threads = Annotated[int, Within(least=1, most=1024)]
Fraction = Annotated[float, Within(least=0, most=1)]
PositiveFraction = Annotated[float, Within(above=0, most=1)]
ProperFraction = Annotated[float, Within(above=0, below=1)]
FractionBelowOne = Annotated[float, Within(least=0, below=1)]
Positive = Annotated[float, Within(above=0, most=FAR)]
NonNegative = Annotated[float, Within(least=0, most=FAR)]
Weight = Annotated[float, Within(least=-FAR, most=FAR)]
"""A weight that may be negative."""
LearningRate = Annotated[float, Within(above=0, most=100.0)]
Temperature = Annotated[float, Within(least=1e-4, most=10_000)]
"""Of sampling: the logarithms of probabilities are divided by it, in float32."""
KLWeight = Annotated[float, Within(least=1e-6, most=FAR)]
"""A price of a nat, by which scores are divided."""
