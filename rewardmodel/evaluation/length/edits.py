"""Accuracy on human edits that improve a reply, by whether they shorten or lengthen it.

A reward model that follows length prefers improving edits less where they shorten. In Stiennon et
al. 2020 (https://arxiv.org/abs/2009.01325, section 4.3) it prefers 62.6 % of those, humans 76.4 %.
Lengths are in characters.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.formats.format import ConvertOptions
from rewardmodel.data.formats.qa_feedback import convert_qa_feedback
from rewardmodel.data.parsing.template_columns import with_system
from rewardmodel.data.rows import OnBadRow, PreferenceDataError, Row, SkippedPart
from rewardmodel.data.sources.sources import load_records
from rewardmodel.evaluation.clustered import (
    accuracy_where,
    clustered_accuracy,
    clustered_mean,
    number_prompts,
    require_prompts,
)
from rewardmodel.evaluation.scoring import preference_margins
from rewardmodel.interface import RewardModel


@dataclass(frozen=True)
class EditAccuracy:
    """How often a reward model prefers an improving edit to the original.

    Attributes:
        edits: That changed the reply.
        unchanged: Left out, since the edit is the original.
        shorter: Edits that shorten.
        longer: Edits that lengthen.
        accuracy: Over all edits, equal scores counting half.
        accuracy_where_shorter: Over those that shorten; None where there are none.
        accuracy_where_longer: Over those that lengthen; None where there are none.
        mean_margin: Score of the edit minus that of the original.
        seed: Of the bootstrap over prompts.
    """

    edits: int
    unchanged: int
    shorter: int
    longer: int
    accuracy: Interval
    accuracy_where_shorter: Interval | None
    accuracy_where_longer: Interval | None
    mean_margin: Interval
    seed: int


def edit_accuracy(
    reward_model: RewardModel,
    edits: Dataset,
    *,
    seed: int,
) -> EditAccuracy:
    """Measures how often the edit scores higher than the original, in data of `load_edits`.

    Raises:
        ValueError: A column is missing, no edit changes anything, a score is not finite, or there
            are fewer than two prompts.
    """
    missing = [c for c in ("prompt", "original", "edited") if c not in edits.column_names]
    if missing:
        raise ValueError(
            f"the edits have the columns {edits.column_names}; required are prompt, original and "
            "edited. Load them with load_edits, or rename the columns."
        )
    changed = [
        row
        for row, (original, edited) in enumerate(
            zip(edits["original"][:], edits["edited"][:], strict=True)
        )
        if original.strip() != edited.strip()
    ]
    if not changed:
        raise ValueError(
            f"none of the {len(edits)} edits changes its reply; required is at least one that "
            "does. Check that original and edited are not the same column."
        )
    rows = edits.select(changed)
    pairs = Dataset.from_dict(
        {"prompt": rows["prompt"][:], "chosen": rows["edited"][:], "rejected": rows["original"][:]}
    )
    groups = number_prompts(pairs)
    require_prompts(groups)
    margins = preference_margins(reward_model, pairs)
    growth = np.array(
        [len(a) - len(b) for a, b in zip(pairs["chosen"][:], pairs["rejected"][:], strict=True)]
    )
    return EditAccuracy(
        edits=len(margins),
        unchanged=len(edits) - len(margins),
        shorter=int((growth < 0).sum()),
        longer=int((growth > 0).sum()),
        accuracy=clustered_accuracy(margins, groups),
        accuracy_where_shorter=accuracy_where(margins, groups, growth < 0),
        accuracy_where_longer=accuracy_where(margins, groups, growth > 0),
        mean_margin=clustered_mean(margins, groups, seed),
        seed=seed,
    )


def load_edits(
    source: str,
    *,
    split: str = "train",
    on_bad_row: OnBadRow = "error",
    limit: int | None = None,
) -> Dataset:
    """Loads edits: rows of prompt, original and edited, or qa-feedback's human corrections.

    Of a qa-feedback row, the original is its first prediction, which the annotator corrected, and
    the prompt is that of the preference pairs made from it. Corrections that delete everything are
    left out and counted in a warning. Arguments as `load_preferences`.

    Returns:
        Text columns `prompt`, `original` and `edited`.

    Raises:
        PreferenceDataError: No such source, a bad row, or no good row at all.

    Source: the qa-feedback format, Wu et al. 2023 (https://arxiv.org/abs/2306.01693).
    """
    records = list(
        load_records(source, _take_edit, split=split, on_bad_row=on_bad_row, limit=limit)
    )
    return Dataset.from_dict(
        {name: [record[name] for record in records] for name in ("prompt", "original", "edited")}
    )


def _take_edit(row: Row) -> list[dict[str, str] | SkippedPart]:
    """Prompt, original and edited of one row."""
    feedback = row.get("feedback")
    if "edited" in row or not isinstance(feedback, dict):
        edit = {name: _text(row, name) for name in ("prompt", "original", "edited")}
        return [{**edit, "prompt": with_system(row, edit["prompt"])}]
    if feedback.get("corrected-prediction") == "":
        return [SkippedPart("empty correction")]
    edited = _text(feedback, "corrected-prediction").strip()
    original = _text(row, "prediction 1").strip()
    return [{"prompt": _qa_prompt(row), "original": f" {original}", "edited": f" {edited}"}]


def _qa_prompt(row: Row) -> str:
    """The prompt that the converter of preference pairs makes of the same row."""
    for pair in convert_qa_feedback(row, ConvertOptions()):
        if not isinstance(pair, SkippedPart):
            return pair["prompt"]
    raise PreferenceDataError(
        "all four predictions are the same text, so the row has no pair to take its prompt from. "
        'Drop the row (on_bad_row="skip").',
        reason="four equal predictions",
    )


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise PreferenceDataError(
            f"column {column!r} holds {value!r}; required is a text. Edits are rows of prompt, "
            "original and edited, or of the qa-feedback format. Fill it in, or drop the row "
            '(on_bad_row="skip").',
            reason=f"no text in {column!r}",
        )
    return value
