"""The published formats by name: converter, where the hub holds them, how they are recognized.

A format is recognized by its hub id, or by columns of the first row that no other format has.
What is not recognized is plain: columns as they are. A new format is a file, a line here, and its
name in `rewardmodel.choices.FormatName`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardmodel.data.formats.hh import convert_hh
from rewardmodel.data.formats.options import ConvertOptions
from rewardmodel.data.formats.qa_feedback import convert_qa_feedback
from rewardmodel.data.formats.ranked import convert_rankings, convert_scores
from rewardmodel.data.formats.rewardbench import convert_reward_bench, refuse_reward_bench_2
from rewardmodel.data.formats.tldr import convert_tldr
from rewardmodel.data.formats.ultrafeedback import convert_ultrafeedback
from rewardmodel.data.rows import Row


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        name: By which the user asks for it.
        description: One line, for help and errors.
        convert: From a raw row to rows of pairs (`prompt`, `chosen`, `rejected`) or of rankings
            (`prompt`, `responses`, `ranks`), and marks of what was left out.
        signatures: Sets of columns; a row that has all of one set is of this format.
        any_prompt: Whether the prompt's column may have another name.
        aside: Columns that the publication has and that say nothing about its pairs, such as ids.
        hub: Hub ids, each with what `datasets.load_dataset` must be told beside the id.
    """

    name: str
    description: str
    convert: Callable[[Row, ConvertOptions], list[Any]]
    signatures: tuple[frozenset[str], ...] = ()
    hub: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    any_prompt: bool = False


_FOUR = tuple(f"prediction {k}" for k in range(1, 5))
# The hub keeps a script for these comparisons, which `datasets` no longer runs; its own parquet
# export of them does load.
_EXPORT = {"data_dir": "comparisons", "revision": "refs/convert/parquet"}

_ALL = (
    Format(
        "hh",
        "Anthropic/hh-rlhf: two transcripts that share their beginning",
        convert_hh,
        hub={"Anthropic/hh-rlhf": {}},
    ),
    Format(
        "tldr",
        "openai/summarize_from_feedback: two summaries of a post, with confidences",
        convert_tldr,
        (frozenset({"info", "summaries", "choice"}),),
        {"openai/summarize_from_feedback": _EXPORT},
        frozenset({"worker"}),
    ),
    Format(
        "ultrafeedback",
        "UltraFeedback: scored completions, or pairs with score_chosen and score_rejected",
        convert_ultrafeedback,
        (
            frozenset({"instruction", "completions"}),
            frozenset({"chosen", "rejected", "score_chosen", "score_rejected"}),
        ),
        {"openbmb/UltraFeedback": {}, "HuggingFaceH4/ultrafeedback_binarized": {}},
        # The messages are those of chosen once more.
        frozenset({"prompt_id", "messages", "source", "models"}),
    ),
    Format(
        "rewardbench",
        "allenai/reward-bench: pairs with subsets",
        convert_reward_bench,
        (frozenset({"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"}),),
        {"allenai/reward-bench": {}},
        frozenset({"id", "chosen_model", "rejected_model"}),
    ),
    Format(
        "rewardbench2",
        "allenai/reward-bench-2: best of several; not pairs, see load_reward_bench_2",
        refuse_reward_bench_2,
        (frozenset({"prompt", "chosen", "rejected", "num_correct", "total_completions"}),),
        {"allenai/reward-bench-2": {}},
    ),
    Format(
        "qa_feedback",
        "QA-Feedback of FineGrainedRLHF: four answers compared two by two, with ties",
        convert_qa_feedback,
        (frozenset({"question", "passages", "preference", *_FOUR}),),
    ),
    Format(
        "scores",
        "prompt, responses and scores: the higher the better, equal scores ties",
        convert_scores,
        (frozenset({"responses", "scores"}),),
        any_prompt=True,
    ),
    Format(
        "rankings",
        "prompt, responses and ranks: 1 is best, equal ranks ties",
        convert_rankings,
        (frozenset({"responses", "ranks"}),),
        any_prompt=True,
    ),
)
FORMATS: Mapping[str, Format] = {found.name: found for found in _ALL}


def format_named(name: str) -> Format | None:
    """The format of a name; None for "auto" and "plain".

    Raises:
        ValueError: There is no such format.
    """
    if name in ("auto", "plain"):
        return None
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; required is one of:\n{describe_formats()}")
    return FORMATS[name]


def format_of_source(source: str | os.PathLike[str]) -> Format | None:
    """The format of a hub id, or None."""
    return next((found for found in _ALL if os.fspath(source) in found.hub), None)


def hub_options(source: str | os.PathLike[str]) -> Mapping[str, str]:
    """What `datasets.load_dataset` must be told beside a hub id."""
    found = format_of_source(source)
    return found.hub[os.fspath(source)] if found else {}


def recognize(row: Row) -> Format | None:
    """The format whose columns a row has, or None."""
    columns = set(row)
    return next((found for found in _ALL if any(s <= columns for s in found.signatures)), None)


def describe_formats() -> str:
    """One line a format, for help and errors."""
    lines = [
        "  auto: by the hub id or the columns of the first row",
        "  plain: columns as they are",
    ]
    return "\n".join([*lines, *(f"  {found.name}: {found.description}" for found in _ALL)])
