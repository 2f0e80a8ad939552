"""Accuracy of a process reward model on labeled steps, and on the first wrong step of responses.

Letters: S steps of all responses, R responses.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from prefsearch.statistics.intervals import Interval, wilson_interval
from rewardmodel.data.conversation import prompts_of
from rewardmodel.evaluation.calibration import expected_calibration_error
from rewardmodel.evaluation.clustered import clustered_accuracy
from rewardmodel.interface import StepRewardModel


@dataclass(frozen=True)
class ProcessEvaluation:
    """A process reward model's figures on labeled steps.

    Attributes:
        responses: R.
        steps: S, those labeled exactly one half left out of `accuracy`.
        accuracy: Share of steps on the right side of one half, its 95 % interval over responses.
        ece: Expected calibration error over steps.
        first_error: Share of the responses with a wrong step whose first one is found.
        all_right: Share of the responses without a wrong step in which none is found.
        f1: Harmonic mean of the two, or None where there are no responses of one kind.
    """

    responses: int
    steps: int
    accuracy: Interval
    ece: float
    first_error: Interval | None
    all_right: Interval | None
    f1: float | None


def evaluate_process_model(
    reward_model: StepRewardModel, steps: Dataset, *, batch_rows: int = 64
) -> ProcessEvaluation:
    """Evaluates a process reward model on labeled steps; scores below one half predict wrong ones.

    `steps` are as `load_steps` returns them, of prompts not trained on.

    Raises:
        ValueError: If there are no steps, or a score is no probability.

    Source: first errors and their F1 as in ProcessBench, Zheng et al. 2024
    (https://arxiv.org/abs/2412.06559).
    """
    if len(steps) == 0:
        raise ValueError("no steps to evaluate on; required: at least 1 row")
    prompts, texts = prompts_of(steps), list(steps["completions"])
    labels = [np.asarray(row, dtype=np.float64) for row in steps["labels"]]
    scores: list[np.ndarray] = []
    for start in range(0, len(prompts), batch_rows):
        here = slice(start, start + batch_rows)
        found = reward_model.step_scores(prompts[here], texts[here])
        scores += [row.double().numpy() for row in found]
    predicted, known = np.concatenate(scores), np.concatenate(labels)  # [S]
    if predicted.min() < 0 or predicted.max() > 1:
        raise ValueError(
            f"steps are scored from {predicted.min():.3g} to {predicted.max():.3g}; required: "
            "probabilities in [0, 1]. Evaluate a model whose scores are"
        )
    owners = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    decided = known != 0.5
    if not decided.any():
        raise ValueError("all steps are labeled one half; required: right and wrong ones")
    # A step is right where score and label lie on the same side.
    margins = np.where(predicted >= 0.5, 1.0, -1.0) * np.sign(known - 0.5)
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for mine, truth in zip(scores, labels, strict=True):
        first, expected = _first(mine < 0.5), _first(truth < 0.5)
        hits[expected is not None].append(first == expected)
    rates = [
        wilson_interval(sum(hits[wrong]), len(hits[wrong])) if hits[wrong] else None
        for wrong in (True, False)
    ]
    return ProcessEvaluation(
        responses=len(labels),
        steps=int(decided.sum()),
        accuracy=clustered_accuracy(margins[decided], owners[decided]),
        ece=expected_calibration_error(predicted, known),
        first_error=rates[0],
        all_right=rates[1],
        f1=_harmonic_mean(*rates),
    )


def _first(wrong: np.ndarray) -> int | None:
    """Index of the first True, or None."""
    return int(wrong.argmax()) if wrong.any() else None


def _harmonic_mean(first: Interval | None, second: Interval | None) -> float | None:
    if first is None or second is None:
        return None
    a, b = first.estimate, second.estimate
    return 2 * a * b / (a + b) if a + b else 0.0
