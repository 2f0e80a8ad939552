"""Published formats of preference data, and the options of their converters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from prefsearch.config.bounds import Tokens
from prefsearch.config.checks import check_types
from rewardmodel.data.parsing.shared_prompt import Turns
from rewardmodel.data.rows import Row


@dataclass(frozen=True)
class ConvertOptions:
    """Options of a conversion.

    Attributes:
        tokenizer: Counts the tokens of a query, and renders questions to a chat model.
        margins: Keep the difference of two scores as the pair's `margin`, which changes what is
            trained.
        query_tokens: Most tokens of a TL;DR query; None leaves posts whole.
        keep_messages: Leave messages to be rendered by each model that reads them.
        prompt_column: The prompt's column in rows of several responses, whose format leaves it
            open.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    margins: bool = False
    query_tokens: Tokens | None = None
    keep_messages: bool = False
    prompt_column: str = "prompt"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

    def prompt_turns(self, question: str) -> Turns:
        """A question as the prompt: a user's turn where the tokenizer has a chat template."""
        if self.tokenizer is None or not getattr(self.tokenizer, "chat_template", None):
            return question
        return [{"role": "user", "content": question}]


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        name: Its name in settings.
        description: One line, for help and errors.
        convert: From a raw row to rows of pairs (`prompt`, `chosen`, `rejected`) or of rankings
            (`prompt`, `responses`, `ranks`), and `SkippedPart` for parts that were left out.
        signatures: Sets of columns; a row that has all of one set is of this format.
        hub: Hub ids, each with further arguments of `datasets.load_dataset`.
        aside: Columns that the format has and that are not used, such as ids.
        any_prompt: Whether the prompt's column may have another name.
    """

    name: str
    description: str
    convert: Callable[[Row, ConvertOptions], list[Any]]
    signatures: tuple[frozenset[str], ...] = ()
    hub: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    any_prompt: bool = False
