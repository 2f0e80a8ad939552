"""Baselines for reward models: the longer reply, a bag of words, a transformer from scratch.

Letters: P pairs, V tokens in the vocabulary.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit
from transformers import LlamaConfig, LlamaForSequenceClassification

from prefsearch.progress import track
from prefsearch.statistics.intervals import Interval
from prefsearch.storage.folders import new_folder
from rewardmodel.data.conversation import replies_of
from rewardmodel.data.labels import chosen_probabilities, preference_signs
from rewardmodel.evaluation.clustered import (
    Floats,
    clustered_accuracy,
    length_margins,
    number_prompts,
)
from rewardmodel.pretrained.tokenization import load_tokenizer

_TOKEN = re.compile(r"\w+|[^\w\s]")
_FOLDS = 5
_L2_GRID = tuple(10.0 ** (power / 2) for power in range(-8, 3))


@dataclass(frozen=True)
class BagOfWordsBaseline:
    """Logistic regression on token counts.

    `margins` [P] are of the test pairs in their order.
    """

    accuracy: Interval
    margins: Floats
    l2: float
    vocabulary: int


def longer_reply_accuracy(dataset: Dataset) -> Interval:
    """Accuracy of preferring the reply with more characters, equal lengths counting half.

    Pairs whose `chosen_probability` is one half are left out.

    Raises:
        ValueError: The dataset has no pair with a better reply.
    """
    return _accuracy(length_margins(dataset), dataset)


def bag_of_words_accuracy(train: Dataset, test: Dataset, *, seed: int = 0) -> BagOfWordsBaseline:
    """Accuracy of logistic regression on the difference of two replies' token counts.

    A reply is log1p of how often each token of the training replies occurs in it. There is no
    intercept, so swapping a pair flips its margin. The penalty is chosen by log loss in cross
    validation over the training prompts, with folds drawn by `seed`. `chosen_probability` gives the
    better reply; ties are left out.

    Raises:
        ValueError: `test` has no pair with a better reply, or `train` has such of fewer than two
            prompts.
    """
    signs = preference_signs(chosen_probabilities(train))
    train, signs = train.select(np.flatnonzero(signs)), signs[signs != 0]
    groups = number_prompts(train)
    prompts = int(groups.max(initial=-1)) + 1
    tested = int(np.count_nonzero(preference_signs(chosen_probabilities(test))))
    if prompts < 2 or tested == 0:
        raise ValueError(
            f"found {prompts} training prompts and {tested} test pairs with a better reply; "
            "required are at least 2 and 1. Load more pairs, or choose another holdout."
        )
    vocabulary: dict[str, int] = {}
    # In every row, the better reply less the other.
    counts = _count_differences(train, vocabulary, grow=True)
    features = csr_array(counts.multiply(signs[:, None]))
    folds = min(_FOLDS, prompts)
    fold = (np.random.default_rng(seed).permutation(prompts) % folds)[groups]  # [P]
    losses = []
    for l2 in track(_L2_GRID, "choosing the penalty"):
        held_out = np.empty(len(train))
        for index in range(folds):
            weights = _fit_logistic(features[fold != index], len(vocabulary), l2)
            held_out[fold == index] = features[fold == index] @ weights
        losses.append(np.logaddexp(0.0, -held_out).mean())
    l2 = _L2_GRID[int(np.argmin(losses))]
    weights = _fit_logistic(features, len(vocabulary), l2)
    margins = np.asarray(_count_differences(test, vocabulary, grow=False) @ weights)
    return BagOfWordsBaseline(
        accuracy=_accuracy(margins, test),
        margins=margins,
        l2=l2,
        vocabulary=len(vocabulary),
    )


def _accuracy(margins: Floats, dataset: Dataset) -> Interval:
    """Accuracy of margins [P], chosen minus rejected, over the pairs with a better reply."""
    signs = preference_signs(chosen_probabilities(dataset))
    decided = signs != 0
    return clustered_accuracy((signs * margins)[decided], number_prompts(dataset)[decided])


def _count_differences(dataset: Dataset, vocabulary: dict[str, int], *, grow: bool) -> csr_array:
    """Return log1p token counts of chosen minus rejected, [P, V]; `grow` adds to `vocabulary`."""
    values: list[float] = []
    columns: list[int] = []
    starts = [0]
    columns_of_text = (replies_of(dataset, name) for name in ("chosen", "rejected"))
    for pair in zip(*columns_of_text, strict=True):
        counts = [Counter(_TOKEN.findall(str(text).lower())) for text in pair]
        for token in {**counts[0], **counts[1]}:  # in order of appearance, unlike a set
            if grow:
                vocabulary.setdefault(token, len(vocabulary))
            if token in vocabulary and counts[0][token] != counts[1][token]:
                columns.append(vocabulary[token])
                values.append(np.log1p(counts[0][token]) - np.log1p(counts[1][token]))
        starts.append(len(values))
    return csr_array((values, columns, starts), shape=(len(dataset), len(vocabulary)))


def _fit_logistic(features: csr_array, vocabulary: int, l2: float) -> Floats:
    """Return the weights [V] that minimize mean log loss of `features` [P, V] plus the penalty."""
    transposed = features.T.tocsr()

    def objective(weights: Floats) -> tuple[float, Floats]:
        margins = features @ weights
        loss = np.logaddexp(0.0, -margins).mean() + 0.5 * l2 * (weights @ weights)
        gradient = l2 * weights - transposed @ expit(-margins) / len(margins)
        return float(loss), gradient

    start = np.zeros(vocabulary)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(found.x)


def build_scratch_scorer(
    tokenizer_of: str, folder: Path, *, seed: int, hidden_size: int = 128, layers: int = 4
) -> Path:
    """Writes a one-label Llama of random weights with another model's tokenizer; returns `folder`.

    It supports texts, and pairs as encoders do. Heads are 32 wide; an existing folder is kept.
    """
    if (folder / "config.json").is_file():
        return folder
    tokenizer = load_tokenizer(tokenizer_of)
    # A Llama has no token types; it tells the segments of a pair by the separators between them.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 32),
        max_position_embeddings=2048,
        # The default, 0.02, is far too small at such a width.
        initializer_range=0.7 * hidden_size**-0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    return folder
