"""The size of a language model built from scratch, and what unfinished demonstrations become."""

from dataclasses import dataclass
from typing import Annotated, Literal

from prefsearch.config.bounds import Tokens, Within
from prefsearch.config.checks import check_types, require

Unfinished = Literal["no_end", "leave_out"]
"""What becomes of demonstrations that were cut off."""


@dataclass
class TinyModel:
    """The size of a Llama trained from scratch.

    Attributes:
        vocabulary: From scratch: entries of the byte-level BPE that is trained on the
            demonstrations.
        hidden_size: From scratch: width of the model.
        layers: From scratch: transformer blocks.
        heads: From scratch: attention heads, a divisor of `hidden_size`.
        context: From scratch: the most tokens of prompt and response.
    """

    vocabulary: Annotated[int, Within(ge=1, le=2**24)] = 1024
    hidden_size: Annotated[int, Within(ge=1, le=2**16)] = 128
    layers: Annotated[int, Within(ge=1, le=1024)] = 3
    heads: Annotated[int, Within(ge=1, le=1024)] = 4
    context: Tokens = 256

    def __post_init__(self) -> None:
        """Checks types and that the heads divide the width."""
        check_types(self)
        divides = self.heads > 0 and self.hidden_size % self.heads == 0
        require(divides, "heads", self.heads, f"a divisor of hidden_size = {self.hidden_size}")
