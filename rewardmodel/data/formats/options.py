"""What a converter may be told beside the row."""

from dataclasses import dataclass
from typing import Any

from prefsearch.config.bounds import Tokens
from prefsearch.config.checks import check_types
from rewardmodel.data.parsing.reply_text import Turns


@dataclass(frozen=True)
class ConvertOptions:
    """Settings of a conversion.

    Attributes:
        tokenizer: Counts the tokens of a query, and renders questions to a chat model.
        margins: Keep the difference of two scores as the pair's `margin`. A margin changes what
            is trained, so it is taken only where asked for.
        query_tokens: Most tokens of a TL;DR query; None leaves posts whole.
        keep_messages: Leave messages to be rendered by each model that reads them.
        prompt_column: The prompt's column in rows of several responses, whose format does not fix
            it.
    """

    tokenizer: Any = None
    margins: bool = False
    query_tokens: Tokens | None = None
    keep_messages: bool = False
    prompt_column: str = "prompt"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)

    def asked(self, question: str) -> Turns:
        """A bare question as the prompt: a user's turn where there is a chat template.

        Without one the text is taken as it is, as everywhere else.
        """
        if self.tokenizer is None or not getattr(self.tokenizer, "chat_template", None):
            return question
        return [{"role": "user", "content": question}]
