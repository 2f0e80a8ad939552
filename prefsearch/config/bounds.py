"""Numeric bounds in type hints of settings: `Annotated[float, Within(gt=0)]`.

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
        ge: The least number allowed; None where `gt` is given.
        gt: The number must be more than this; None where `ge` is given.
        le: The greatest number allowed; None where `lt` is given.
        lt: The number must be less than this; None where `le` is given.
        unit: What is counted, for messages.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    unit: str = ""

    @property
    def closed(self) -> bool:
        """Whether there is a lower and an upper bound."""
        low = self.ge is not None or self.gt is not None
        return low and (self.le is not None or self.lt is not None)

    def holds(self, value: float) -> bool:
        """Whether a number lies within the bounds."""
        return (
            -math.inf < value < math.inf
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def describe(self, otherwise: str = "") -> str:
        """Describes the bounds, for messages and `--help`.

        Args:
            otherwise: What may stand instead of a number, such as "null".
        """
        unit = f" {self.unit}" if self.unit else ""
        other = f", or {otherwise}" if otherwise else ""
        low = self.ge if self.gt is None else self.gt
        high = self.le if self.lt is None else self.lt
        if low is not None and high is not None and low >= 0 and high <= 1:
            left = "[" if self.gt is None else "("
            right = "]" if self.lt is None else ")"
            return f"in {left}{low:g}, {high:g}{right}{other}"
        if self.gt is not None:
            lower = f"more than {_number(self.gt)}{unit}"
        elif self.ge is None:
            lower = "a finite number"
        elif self.ge == 0:
            lower = f"0 or more{unit}"
        else:
            lower = f"at least {_number(self.ge)}{unit}"
        if high is None:
            return f"{lower}{other}"
        upper = "at most" if self.lt is None else "less than"
        return f"{lower}{other} ({upper} {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


ANY_TEXT = "any text"
ModelText = Annotated[str, ANY_TEXT]
"""Text that a model may write, NUL included; other texts may be names of files."""
Seed = Annotated[int, Within(ge=0, le=2**32 - 1)]
"""What torch, numpy and Python all take."""
Rows = Annotated[int, Within(ge=1, le=10**12)]
"""Rows of a dataset."""
Count = Annotated[int, Within(ge=1, le=10**9)]
"""How often something is done, or how many there are, one after another."""
CountOrZero = Annotated[int, Within(ge=0, le=10**9)]
Size = Annotated[int, Within(ge=1, le=2**20)]
"""What is held in memory at a time: a batch, a width, a depth."""
SizeOrZero = Annotated[int, Within(ge=0, le=2**20)]
Tokens = Annotated[int, Within(ge=1, le=2**24)]
"""Tokens of a text."""
Threads = Annotated[int, Within(ge=1, le=1024)]
Fraction = Annotated[float, Within(ge=0, le=1)]
PositiveFraction = Annotated[float, Within(gt=0, le=1)]
ProperFraction = Annotated[float, Within(gt=0, lt=1)]
FractionBelowOne = Annotated[float, Within(ge=0, lt=1)]
Positive = Annotated[float, Within(gt=0, le=FAR)]
NonNegative = Annotated[float, Within(ge=0, le=FAR)]
Weight = Annotated[float, Within(ge=-FAR, le=FAR)]
"""A weight that may be negative."""
LearningRate = Annotated[float, Within(gt=0, le=100.0)]
Temperature = Annotated[float, Within(ge=1e-4, le=10_000)]
"""Of sampling: the logarithms of probabilities are divided by it, in float32."""
KLWeight = Annotated[float, Within(ge=1e-6, le=FAR)]
"""A price of a nat, by which scores are divided."""
