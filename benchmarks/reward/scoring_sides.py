"""The sides of the scoring benchmark: ways to score many responses to one prompt.

Every side begins with the same texts, tokenizes them itself and ends with float32 scores [N] in the
order of the responses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.harness.word_tokenizer import SPECIAL, word_tokenizer
from benchmarks.reward.reward_models import SIZES, classifier, encoder_classifier
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.pretrained.tokenization import TextEncoder

CONTEXT = 2048
PLAIN_ROWS, SORTED_ROWS = 64, 16


@dataclass(frozen=True)
class Cell:
    """One model, one prompt and its responses.

    Attributes:
        name: Shown.
        size: Of the model, in `SIZES`.
        prompt: Its words are its tokens.
        responses: N texts; the end token comes on top.
        encoder: Whether the model is an encoder, which cannot share a prompt.
        memory: Whether peak memory is measured.
    """

    name: str
    size: str
    prompt: str
    responses: tuple[str, ...]
    encoder: bool = False
    memory: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Length P of the prompt."""
        return len(self.prompt.split())

    @property
    def response_tokens(self) -> list[int]:
        """Length of each response, its end token included."""
        return [len(response.split()) + 1 for response in self.responses]

    @property
    def tokens(self) -> int:
        """Of all whole texts."""
        return len(self.responses) * self.prompt_tokens + sum(self.response_tokens)

    @property
    def floor(self) -> float:
        """How many times fewer tokens are computed where the prompt is shared."""
        if self.encoder:
            return 1.0
        return self.tokens / (self.prompt_tokens + sum(self.response_tokens))

    @property
    def sides(self) -> tuple[str, ...]:
        """Which of `SIDES` can run."""
        return tuple(side for side in SIDES if not (self.encoder and side == "own cache"))


@dataclass(frozen=True)
class Subject:
    """The model of a cell, as all sides use it.

    Attributes:
        model: Sequence classifier.
        tokenizer: One token a word.
        reward_model: Ours, around both.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    reward_model: SequenceRewardModel


def build_subject(cell: Cell) -> Subject:
    """Draws the weights of a cell's model."""
    model = (encoder_classifier if cell.encoder else classifier)(cell.size).eval()
    tokenizer = word_tokenizer(SIZES[cell.size]["vocab_size"])
    encoder = TextEncoder(tokenizer, CONTEXT)
    return Subject(model, tokenizer, SequenceRewardModel(model, encoder))


def whole_texts(cell: Cell) -> list[str]:
    """Prompt, response and end token of every response."""
    return [f"{cell.prompt} {response} {SPECIAL[2]}" for response in cell.responses]


def score_ours(subject: Subject, cell: Cell) -> Tensor:
    """`SequenceRewardModel.score`."""
    return subject.reward_model.score([cell.prompt] * len(cell.responses), cell.responses)


@torch.inference_mode()
def score_plain(subject: Subject, cell: Cell) -> Tensor:
    """Whole texts in the given order."""
    texts, found = whole_texts(cell), []
    for start in range(0, len(texts), PLAIN_ROWS):
        batch = subject.tokenizer(
            texts[start : start + PLAIN_ROWS], padding=True, return_tensors="pt"
        )
        found.append(_logits(subject, batch))
    return torch.cat(found)


@torch.inference_mode()
def score_sorted(subject: Subject, cell: Cell) -> Tensor:
    """Whole texts, those of like length in one forward pass."""
    rows = subject.tokenizer(whole_texts(cell))["input_ids"]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(len(rows))
    for start in range(0, len(rows), SORTED_ROWS):
        lines = order[start : start + SORTED_ROWS]
        batch = subject.tokenizer.pad({"input_ids": [rows[i] for i in lines]}, return_tensors="pt")
        found[torch.tensor(lines)] = _logits(subject, batch)
    return found


@torch.inference_mode()
def score_own_cache(subject: Subject, cell: Cell) -> Tensor:
    """The prompt once, its cache repeated, and all responses in one forward pass."""
    count = len(cell.responses)
    prompt = subject.tokenizer(cell.prompt, return_tensors="pt")["input_ids"]
    responses = [f"{response} {SPECIAL[2]}" for response in cell.responses]
    batch = subject.tokenizer(responses, padding=True, return_tensors="pt")
    cache = DynamicCache(config=subject.model.config)
    subject.model.base_model(input_ids=prompt, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(count)
    before = torch.ones(count, prompt.shape[1], dtype=torch.long)
    found = subject.model(
        input_ids=batch["input_ids"],
        attention_mask=torch.cat([before, batch["attention_mask"]], dim=1),  # [N, P + R]
        past_key_values=cache,
    )
    return found.logits[:, 0].float()


def _logits(subject: Subject, batch: Any) -> Tensor:
    """Scores of right-padded rows, [B]."""
    found = subject.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return found.logits[:, 0].float()


SIDES: dict[str, Callable[[Subject, Cell], Tensor]] = {
    "ours": score_ours,
    "plain": score_plain,
    "sorted": score_sorted,
    "own cache": score_own_cache,
}


def draw_texts(
    size: str, prompt: int, responses: Sequence[int], *, seed: int
) -> tuple[str, tuple[str, ...]]:
    """A prompt and responses of random words."""
    draw = np.random.default_rng(seed)

    def words(count: int) -> str:
        drawn = draw.integers(len(SPECIAL), SIZES[size]["vocab_size"], count)
        return " ".join(f"w{i}" for i in drawn.tolist())

    return words(prompt), tuple(words(count - 1) for count in responses)


def unequal_lengths(count: int, median: int, *, seed: int) -> list[int]:
    """Log-normal response lengths from 4 tokens to four times the median."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), 0.8, count)
    return np.clip(drawn, 4, 4 * median).astype(int).tolist()


def same_ids(subject: Subject, cell: Cell) -> bool:
    """Whether our tokenization and the other sides' give the same token ids."""
    encoder = subject.reward_model.encoder
    ours = [encoder.joined(cell.prompt, response) for response in cell.responses]
    return ours == subject.tokenizer(whole_texts(cell))["input_ids"]
