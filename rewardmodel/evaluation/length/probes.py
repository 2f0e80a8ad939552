"""Probes of length: scores with the last sentence removed, and with it repeated.

A reply without its end should score lower; a reply that repeats its last sentence should not score
higher. A drop on removal may still come of length alone, so read the two together.
"""

import re
from dataclasses import dataclass

from datasets import Dataset

from prefsearch.statistics.intervals import Interval
from rewardmodel.data.conversation import Prompt, prompts_of, replies_of
from rewardmodel.evaluation.clustered import (
    clustered_accuracy,
    clustered_mean,
    number_texts,
)
from rewardmodel.evaluation.scoring import score_texts
from rewardmodel.interface import RewardModel

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


@dataclass(frozen=True)
class LengthProbe:
    """Changes of scores when replies are cut and padded.

    Attributes:
        replies: Distinct replies of two sentences or more, which were probed.
        left_out: Distinct replies that were too short to cut.
        cut_falls: Share whose score falls when the last sentence is removed, no change counting
            half.
        cut_change: Mean change of the score, in the reward model's unit.
        filler_rises: Share whose score rises when the last sentence is repeated at the end.
        filler_change: Mean change of the score.
        seed: Of the bootstrap over prompts.
    """

    replies: int
    left_out: int
    cut_falls: Interval
    cut_change: Interval
    filler_rises: Interval
    filler_change: Interval
    seed: int


def truncation_probe(
    reward_model: RewardModel,
    dataset: Dataset,
    *,
    seed: int,
) -> LengthProbe:
    """Scores distinct `chosen` replies as they are, and with the last sentence removed or repeated.

    Raises:
        ValueError: A column is missing, a score is not finite, or there are fewer than two prompts
            with a reply long enough.
    """
    if "chosen" not in dataset.column_names:
        raise ValueError(
            f"found the columns {dataset.column_names}; required are prompt and chosen. Rename them"
        )
    chosen = replies_of(dataset, "chosen")
    texts = list(dict.fromkeys(zip(prompts_of(dataset), chosen, strict=True)))
    prompts: list[Prompt] = []
    variants: list[tuple[str, str, str]] = []
    for prompt, text in texts:
        reply = str(text)
        cut = cut_sentence(reply)
        if cut is not None:
            tail = reply[len(cut) :].strip()
            prompts.append(prompt)
            variants.append((reply, cut, f"{reply.rstrip()} {tail}"))
    groups = number_texts(prompts)
    if int(groups.max(initial=-1)) < 1:
        raise ValueError(
            f"found {len(variants)} replies of more than 1 sentences under "
            f"{len(set(prompts))} prompts, among {len(texts)}; required are at least 2 prompts. "
            "Probe other replies."
        )
    scores = score_texts(
        reward_model,
        [prompt for prompt in prompts for _ in range(3)],
        [text for variant in variants for text in variant],
    ).reshape(-1, 3)
    cut_change, filler_change = scores[:, 1] - scores[:, 0], scores[:, 2] - scores[:, 0]
    return LengthProbe(
        replies=len(variants),
        left_out=len(texts) - len(variants),
        cut_falls=clustered_accuracy(-cut_change, groups),
        cut_change=clustered_mean(cut_change, groups, seed),
        filler_rises=clustered_accuracy(filler_change, groups),
        filler_change=clustered_mean(filler_change, groups, seed),
        seed=seed,
    )


def cut_sentence(reply: str) -> str | None:
    """A reply without its last sentence, or None where none would be left."""
    body = reply.rstrip()
    ends = [match.start() for match in _SENTENCE_END.finditer(body)]
    # The quotes and brackets that close a sentence belong to it.
    ends = [end + len(body[end:]) - len(body[end:].lstrip("\"')]")) for end in ends]
    cut = body[: ends[-1]] if ends else ""
    return cut if cut.strip() else None
