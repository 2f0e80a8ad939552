"""Classifiers with random weights and token ids for the benchmarks of reward models.

For training, token ids are drawn, so that no side tokenizes. Lengths are fixed for a grid, or drawn
like those of three well-known data sets. Scoring begins with text, for which there is a tokenizer
of one token a word.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

SIZES: dict[str, dict[str, int]] = {
    "4M": {
        "vocab_size": 1024, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 5,
        "num_attention_heads": 8, "num_key_value_heads": 8,
    },
    "30M": {
        "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 8,
    },
    "micro": {  # for tests
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4,
    },
}  # fmt: skip
LIKE: dict[str, tuple[tuple[float, float], tuple[float, float], int]] = {
    # Log-normal (median, sigma) of prompt and response tokens, and the length limit, after the
    # data cards: hh-rlhf transcripts and replies; TL;DR posts and summaries; UltraFeedback.
    "hh-like": ((110, 0.8), (45, 0.8), 512),
    "TL;DR-like": ((330, 0.45), (37, 0.25), 640),
    "UltraFeedback-like": ((100, 0.9), (260, 0.6), 768),
}
PAD = 0


def classifier(size: str, *, seed: int = 0) -> PreTrainedModel:
    """A one-label Llama of a size in `SIZES`, in float32, without dropout."""
    torch.manual_seed(seed)
    config = LlamaConfig(**SIZES[size], max_position_embeddings=2048, num_labels=1,
                         pad_token_id=PAD, tie_word_embeddings=False)  # fmt: skip
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=(config.hidden_size + 1) ** -0.5)
    return model


def encoder_classifier(size: str, *, seed: int = 0) -> PreTrainedModel:
    """A one-label BERT about as large as the Llama of that size, in float32."""
    torch.manual_seed(seed)
    shape = SIZES[size]
    config = BertConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["hidden_size"],
        # Two matrices, where Llama has three.
        intermediate_size=3 * shape["intermediate_size"] // 2,
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        max_position_embeddings=2048,
        # Wide: with the usual 0.02 all texts have the same score, and the gate would miss errors.
        initializer_range=1.5 * shape["hidden_size"] ** -0.5,
        pad_token_id=PAD,
    )
    config.num_labels = 1
    return BertForSequenceClassification(config).eval()


def fixed_lengths(count: int, prompt: int, response: int) -> list[tuple[int, int, int]]:
    """So many pairs of one prompt length and one response length."""
    return [(prompt, response, response)] * count


def drawn_lengths(count: int, name: str, *, seed: int) -> list[tuple[int, int, int]]:
    """Lengths of prompt, chosen and rejected, like those of a data set in `LIKE`."""
    draw = np.random.default_rng(seed)
    (prompt, prompt_sigma), (response, response_sigma), limit = LIKE[name]
    found = []
    for _ in range(count):
        replies = [int(np.clip(draw.lognormal(np.log(response), response_sigma), 4, limit - 16))
                   for _ in range(2)]  # fmt: skip
        most = limit - max(replies)
        length = int(np.clip(draw.lognormal(np.log(prompt), prompt_sigma), 8, most))
        found.append((length, *replies))
    return found


def draw_pairs(
    lengths: Sequence[tuple[int, int, int]], vocabulary: int, *, seed: int
) -> list[tuple[list[list[int]], int]]:
    """Token ids of chosen and rejected with their prompt, and how many tokens they share."""
    draw = np.random.default_rng(seed)

    def ids(count: int) -> list[int]:
        return draw.integers(3, vocabulary, count).tolist()

    pairs = []
    for prompt, chosen, rejected in lengths:
        shared = ids(prompt)
        # Distinct first tokens, so that no more is shared than the prompt.
        replies = [[1, *ids(chosen - 1)], [2, *ids(rejected - 1)]]
        pairs.append(([shared + reply for reply in replies], prompt))
    return pairs
