"""Labels of preference pairs: which reply is better, and how surely.

Letters: P pairs. A label is the probability, or the share of annotators, that the chosen reply is
the better one; one half is a tie.
"""

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def chosen_probabilities(dataset: Dataset) -> Floats:
    """The labels [P]: the column `chosen_probability`, or ones where there is none.

    Raises:
        ValueError: A label is missing or outside [0, 1]; the message names the row.
    """
    if "chosen_probability" not in dataset.column_names:
        return np.ones(len(dataset))
    labels = np.array(
        [np.nan if value is None else value for value in dataset["chosen_probability"][:]],
        dtype=np.float64,
    )
    wrong = ~((labels >= 0) & (labels <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"row {row}: chosen_probability is {labels[row]}, required is a number in [0, 1], "
            "1 for certain and 0.5 for a tie. Correct it, or drop the row."
        )
    return labels


def preference_signs(labels: Floats) -> Floats:
    """1 where the chosen reply is the better one, -1 where the other is, 0 for a tie."""
    return np.sign(labels - 0.5)


def label_entropy(labels: Floats) -> Floats:
    """Entropy of each label in nats [P], a lower bound of the log loss."""
    inside = np.clip(labels, 1e-300, 1.0)
    outside = np.clip(1 - labels, 1e-300, 1.0)
    return -(labels * np.log(inside) + (1 - labels) * np.log(outside)) + 0.0


def log_losses(margins: Floats, labels: Floats) -> Floats:
    """Cross entropy of each label [P] under `sigmoid(margin)`, in nats."""
    return labels * np.logaddexp(0.0, -margins) + (1 - labels) * np.logaddexp(0.0, margins)


def require_decided(labels: Floats) -> None:
    """Refuses labels that are all ties.

    Raises:
        ValueError: No pair has a better reply.
    """
    if not (labels != 0.5).any():
        raise ValueError(
            f"all {len(labels)} pairs are ties (chosen_probability 0.5), and accuracy is over "
            "pairs with a better reply; required is at least one. Evaluate on other pairs."
        )
