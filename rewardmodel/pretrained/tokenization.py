"""From text to token ids, for training, scoring and planning alike.

Text is `[bos] prompt response eos`, prompt and response tokenized apart and joined. Conversations
are rendered by the tokenizer's chat template, with nothing added. A pair is two segments, as
`tokenizer(prompt, response)` makes them for encoders. So reward models score the ids that they were
trained on, and a prompt has the same ids under every response, which lets a search compute it once.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from prefsearch.storage.json_text import read_json
from rewardmodel.data.chat_template import ChatTemplate, common_prefix_length
from rewardmodel.data.conversation import Conversation, Prompt, Reply, text_of
from rewardmodel.data.text_rows import require_text
from rewardmodel.pretrained.config_fields import INPUT_FORMATS, InputFormat
from rewardmodel.pretrained.files import ADAPTER_CONFIG, TOKENIZER_CONFIG, check_tokenizer_files
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.weights import cannot_load

_logger = logging.getLogger(__name__)
_TOKENIZER = "tokenizer.json"


def load_tokenizer(source: str) -> Any:
    """Loads the tokenizer of a model, by any name of one, with a pad token of its own.

    Raises:
        ValueError: If there is no tokenizer, or it has no end-of-sequence token.
    """
    source = resolve_model(source)
    if Path(source).is_dir():
        check_tokenizer_files(Path(source))
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False
        )
    except Exception as error:  # the library of tokenizers raises no class of its own
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the tokenizer of {source} needs code of its own (auto_map in its "
                "tokenizer_config.json), which is not run; required: a class of transformers. Take "
                "such a model, or name PreTrainedTokenizerFast as its tokenizer_class and take "
                "auto_map out, if tokenizer.json is there"
            ) from error
        if Path(source).is_dir():
            _refuse_damaged(Path(source), error)
            held = ", ".join(sorted(p.name for p in Path(source).iterdir())[:12]) or "nothing"
            raise ValueError(
                f"{source} has no tokenizer that transformers can load (it holds {held}); "
                "required: tokenizer.json, or the tokenizer's own files, beside the weights. Save "
                f"it there with tokenizer.save_pretrained({source!r}) ({type(error).__name__})"
            ) from error
        raise ValueError(
            f"no tokenizer at {source!r}: it is neither a local folder nor a model that the hub "
            f"gave ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Name a local "
            "folder, or check the hub id and the connection"
        ) from error
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
        raise ValueError(
            f"the tokenizer of {source!r} has no end-of-sequence token; required: one, since "
            "responses end with it. Set tokenizer.eos_token and save the tokenizer again"
        )
    give_pad_token(tokenizer)
    return tokenizer


def _refuse_damaged(folder: Path, error: Exception) -> None:
    """Raises for the file that keeps a tokenizer from loading, if one is found."""
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    if (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
        try:
            AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except Exception as wrong:
            raise cannot_load(str(folder), "model", wrong) from wrong
    if (folder / _TOKENIZER).is_file():
        raise ValueError(
            f"{folder / _TOKENIZER}: cannot be read as a tokenizer ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}); required: the file that the tokenizer was "
            f"saved as, which goes with its {TOKENIZER_CONFIG}. Save or copy both again"
        ) from error


def give_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes the pad token differ from the end of sequence.

    Sequence heads of transformers find the last token by comparing with the pad id, so with
    pad = eos they would read the token before the end. The unknown token is taken where there
    is one, else `<|pad|>` is added (`fit_embeddings` then grows the model).
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    # Other special tokens may carry meaning, as those of a chat template do.
    spare = tokenizer.unk_token if tokenizer.unk_token_id != tokenizer.eos_token_id else None
    if spare is None:
        spare = "<|pad|>"
        tokenizer.add_special_tokens({"pad_token": spare})
    else:
        tokenizer.pad_token = spare
    _logger.warning("the tokenizer has no pad token of its own; padding with %r", spare)


_KEPT_PROMPTS = 1024
_PAIR_READER = "a model of question and answer as two segments"

TrainedOn = Literal["messages", "text", "template"]
"""What a model was trained on: conversations, plain text, or, of a model of others' with a chat
template, conversations as a rule."""
_AS_MESSAGES = 'Pass prompts as messages, [{"role": "user", "content": ...}]'
_TEXT_WARNINGS: Mapping[str | None, str] = {
    "messages": "%s was trained on conversations and is given prompts of plain text, which it "
    f"reads without its chat template: its scores may mean little. {_AS_MESSAGES}",
    "template": "%s has a chat template and is given prompts of plain text, which it reads "
    "without it: if it was trained on conversations, as such models are, its scores mean little. "
    f"{_AS_MESSAGES}",
}
_MESSAGES_WARNING = (
    "%s was trained on plain text and is given messages, which its chat template renders: its "
    "scores may mean little. Pass prompts as text"
)
_CUT_WARNING = (
    "a prompt and response are longer than the %d tokens that %s reads, and were cut, the prompt "
    "first; so will others be"
)


@dataclass(frozen=True)
class TextEncoder:
    """Encodes prompts and responses as token ids.

    Attributes:
        tokenizer: With a pad token of its own.
        max_length: Tokens of prompt and response together, or None for no limit.
        input_format: "text", one text, conversations by the chat template; "pair", the two
            segments of `tokenizer(prompt, response)`, truncated by the tokenizer.
        continues: Whether responses are generated after the prompt, by a policy: a chat template
            must then render the prompt as a prefix of prompt and reply. A reward model reads the
            whole, however it is rendered.
        model: The name of the model in warnings; None for no warnings.
        trained_on: The kind of prompts that the model was trained on; others draw one warning.
            None is unknown.
    """

    tokenizer: Any
    max_length: int | None = None
    input_format: InputFormat = "text"
    continues: bool = True
    model: str | None = None
    trained_on: TrainedOn | None = None

    def __post_init__(self) -> None:
        """Checks the format."""
        if self.input_format not in INPUT_FORMATS:
            raise ValueError(
                f"input_format: found {self.input_format!r}; required: one of "
                f"{', '.join(INPUT_FORMATS)}"
            )

    @property
    def end_id(self) -> int:
        """The id that ends a response."""
        end = self.tokenizer.eos_token_id
        return int(end if end is not None else self.tokenizer.sep_token_id)

    @functools.cached_property
    def template(self) -> ChatTemplate:
        """The tokenizer's chat template."""
        return ChatTemplate(self.tokenizer)

    @functools.cached_property
    def _begin_id(self) -> int | None:
        """The id that the tokenizer puts before a text, if any."""
        begin = self.tokenizer.bos_token_id
        if begin is None:
            begin = self.tokenizer.cls_token_id
        return begin if begin is not None and begin in self.tokenizer("")["input_ids"] else None

    @functools.cached_property
    def _adds_space(self) -> bool:
        """Whether the tokenizer puts a space before a text, as SentencePiece's do."""
        tokenize = getattr(self.tokenizer, "tokenize", None)
        return tokenize is not None and "".join(tokenize("x"))[:1] in ("\u2581", "\u0120")

    @functools.cached_property
    def has_token_types(self) -> bool:
        """Whether token types distinguish the two segments of a pair."""
        if self.input_format != "pair":
            return False
        return 1 in self.tokenizer("a", "b").get("token_type_ids", ())

    def shares_vocabulary(self, other: "TextEncoder") -> bool:
        """Whether another encoder's ids mean the same tokens."""
        return self.tokenizer.get_vocab() == other.tokenizer.get_vocab()

    def text_ids(self, text: str) -> list[int]:
        """Ids of a piece of text by itself, without special tokens."""
        return list(self.tokenizer(require_text(text), add_special_tokens=False)["input_ids"])

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt: by the template, or with the begin token where the tokenizer adds one.

        Raises:
            ValueError: If it is a conversation and there is no template, or it refuses it.
        """
        return list(self._kept_prompt_ids(prompt))

    @functools.cached_property
    def _kept_prompt_ids(self) -> Callable[[Prompt], list[int]]:
        """`prompt_ids`, cached for the last prompts."""
        return functools.lru_cache(_KEPT_PROMPTS)(self._prompt_ids)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if self.input_format == "pair":
            return self._segments(prompt, "", cut=False)[0]
        if isinstance(prompt, Conversation):
            if self.trained_on == "text":
                _warn_once(_MESSAGES_WARNING, self.model)
            return self.text_ids(self.template.prompt_text(prompt))
        if self.trained_on in _TEXT_WARNINGS and not self._rendered(prompt):
            _warn_once(_TEXT_WARNINGS[self.trained_on], self.model)
        ids = self.text_ids(prompt)
        begin = self._begin_id
        if begin is not None and ids[:1] != [begin]:  # a chat template may have written it already
            ids.insert(0, begin)
        return ids

    def _rendered(self, prompt: str) -> bool:
        """Whether text holds special tokens, as rendered conversations do."""
        return any(token in prompt for token in self.tokenizer.all_special_tokens)

    def response_ids(self, response: str, *, finished: bool = True) -> list[int]:
        """Ids of a response of text by itself, with the end token if it is finished."""
        ids = self.text_ids(response)
        return self._closed(response, ids) if finished else ids

    def whole(
        self, prompt: Prompt, response: Reply, *, finished: bool = True
    ) -> tuple[list[int], list[int]]:
        """Ids of a prompt and its response, however long.

        The prompt's are `prompt_ids`, or fewer where a tokenizer merges tokens across the boundary
        or the template renders the prompt otherwise. A finished response is closed by the end of
        the template's turn or by the end token; text that already ends a turn gets none.

        Raises:
            ValueError: If the template cannot render them, or the response to a text is messages.
        """
        if self.input_format == "pair":
            return self._segments(prompt, response, cut=False)
        prompt_ids = self.prompt_ids(prompt)
        if isinstance(prompt, Conversation):
            if self.continues:
                text = self.template.prompt_text(prompt)
                text += self.template.reply_text(prompt, response, finished=finished)
            else:
                text = self.template.whole_text(prompt, response, finished=finished)
            ids = self.text_ids(text)
            agreed = len(prompt_ids)
            if ids[:agreed] != prompt_ids:
                agreed = common_prefix_length(ids, prompt_ids)
            return ids[:agreed], ids[agreed:]
        if isinstance(response, Conversation):
            raise ValueError(
                f"found a reply of messages ({', '.join(m['role'] for m in response.messages)}) to "
                "a prompt of text; required: text, or messages for both"
            )
        ids = self._behind(prompt, response) if self._adds_space else self.text_ids(response)
        return prompt_ids, self._closed(response, ids) if finished else ids

    def pair(
        self, prompt: Prompt, response: Reply, *, finished: bool = True
    ) -> tuple[list[int], list[int]]:
        """Ids of a prompt and its response, cut to `max_length`; see `whole` and `fit`."""
        ids = self.whole(prompt, response, finished=finished)
        return self.cut(ids, prompt, response, finished=finished)

    def cut(
        self,
        ids: tuple[list[int], list[int]],
        prompt: Prompt,
        response: Reply,
        *,
        finished: bool = True,
    ) -> tuple[list[int], list[int]]:
        """Cuts the result of `whole` to `max_length`."""
        if self.max_length is None or sum(map(len, ids)) <= self.max_length:
            return ids
        if self.model is not None:
            _warn_once(_CUT_WARNING, self.max_length, self.model)
        if self.input_format == "pair":
            return self._segments(prompt, response, cut=True)
        closing = 1
        if isinstance(prompt, Conversation):
            closing = max(1, len(self.text_ids(self.template.frame.after)))
        return self.fit(*ids, finished=finished, closing=closing)

    def fit(
        self,
        prompt_ids: list[int],
        response_ids: list[int],
        *,
        finished: bool = True,
        closing: int = 1,
    ) -> tuple[list[int], list[int]]:
        """Cuts the ids of a prompt and its response to `max_length`.

        The prompt is cut first, from its left; a response that is too long by itself keeps its
        beginning and the `closing` tokens that end it.
        """
        if self.max_length is None:
            return prompt_ids, response_ids
        if len(response_ids) >= self.max_length:
            cut = response_ids[: self.max_length - 1]
            kept = min(closing, len(cut))
            ends = response_ids[len(response_ids) - kept :]
            response_ids = [*cut[: len(cut) - kept], *ends] if finished else cut
        room = self.max_length - len(response_ids)
        if len(prompt_ids) > room:
            begins = prompt_ids[:1] == [self._begin_id] and room > 1
            prompt_ids = [*prompt_ids[:begins], *prompt_ids[len(prompt_ids) - room + begins :]]
        return prompt_ids, response_ids

    def joined(self, prompt: Prompt, response: Reply) -> list[int]:
        """Ids of a prompt and its finished response in one list."""
        prompt_ids, response_ids = self.pair(prompt, response)
        return prompt_ids + response_ids

    def _closed(self, response: str, ids: list[int]) -> list[int]:
        """Ids of a finished response, with an end token unless it has one."""
        closed = ids[-1:] == [self.end_id] or self.template.closes(response)
        return ids if closed else [*ids, self.end_id]

    def _behind(self, prompt: str, response: str) -> list[int]:
        """Ids of a response after its prompt, for tokenizers that put a space before a text."""
        before, ids = self.text_ids(prompt), self.text_ids(prompt + response)
        if ids[: len(before)] == before:
            return ids[len(before) :]
        return self.text_ids(response.removeprefix(" "))  # they merge: the space is put there anew

    def _segments(
        self, prompt: Prompt, response: Reply, *, cut: bool
    ) -> tuple[list[int], list[int]]:
        """Ids of the first segment, with the separators behind it, and of the second."""
        limit = self.max_length if cut else None
        made = self.tokenizer(
            require_text(text_of(prompt, _PAIR_READER)),
            require_text(text_of(response, _PAIR_READER)),
            truncation=limit is not None,
            max_length=limit,
        )
        ids = list(made["input_ids"])
        second = made.sequence_ids()
        # An empty response leaves only the separator that closes it.
        at = second.index(1) if 1 in second else len(ids) - 1
        return ids[:at], ids[at:]


@functools.cache
def _warn_once(message: str, *of: object) -> None:
    """Logs a warning once."""
    _logger.warning(message, *of)


def token_types(mask: Tensor, seconds: Tensor) -> Tensor:
    """Token types of pairs, int64 [B, T]: 1 in the second segment, which begins at `seconds` [B].

    `mask` is int64 [B, T], 1 where there is a token.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    return (places >= seconds.to(mask.device)[:, None]).long() * mask
