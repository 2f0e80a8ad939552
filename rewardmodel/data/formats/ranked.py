"""K replies to one prompt: `responses` with `scores`, or with `ranks`.

The order becomes `ranks`, 1 the best, equal numbers ties, competition ranking: two firsts are
followed by a third. Copies of a reply are left out and counted; of their scores the mean is kept.
"""

from collections.abc import Sequence
from typing import Any

from rewardmodel.data.formats.fields import bad_value, missing, read_number, take_list
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.parsing.finished import replies_finished
from rewardmodel.data.parsing.prompt_columns import take_prompt
from rewardmodel.data.parsing.reply_text import Turns
from rewardmodel.data.rows import PreferenceDataError, Row, SkippedPart

_TEXTS = "a list of at least two different texts"
_HIGHEST_RANK = 2**53  # beyond it not every whole number is a float


def convert_scores(row: Row, options: ConvertOptions) -> list[dict[str, Any] | SkippedPart]:
    """One ranking from `prompt`, `responses` and `scores`, the highest score best.

    Raises:
        PreferenceDataError: A field is missing or wrong, or fewer than two replies differ.
    """
    responses = take_list(row, "responses", str, required=_TEXTS)
    scores = _numbers(row, "scores", len(responses))
    prompt = take_prompt(row, options.prompt_column, option="prompt_column")
    return ranking_of_scores(
        prompt,
        responses,
        scores,
        subset=row.get("subset"),
        finished=replies_finished(row, len(responses)),
        options=options,
    )


def convert_rankings(row: Row, options: ConvertOptions) -> list[dict[str, Any] | SkippedPart]:
    """One ranking from `prompt`, `responses` and `ranks`, rank 1 best.

    Raises:
        PreferenceDataError: A field is missing or wrong, or fewer than two replies differ.
    """
    responses = take_list(row, "responses", str, required=_TEXTS)
    numbers = _numbers(row, "ranks", len(responses))
    if any(not 1 <= number <= _HIGHEST_RANK or number != int(number) for number in numbers):
        raise bad_value("ranks", row["ranks"], "a list of whole numbers, 1 for the best")
    rank_of: dict[str, int] = {}
    for text, number in zip(responses, numbers, strict=True):
        if rank_of.setdefault(text, int(number)) != int(number):
            raise PreferenceDataError(
                f"the reply {text[:60]!r} occurs with the ranks {rank_of[text]} and {int(number)}; "
                'required is one rank a text. Mend it or drop the row (on_bad_row="skip").',
                reason="one reply with two ranks",
            )
    record = {
        "prompt": take_prompt(row, options.prompt_column, option="prompt_column"),
        "responses": _require_two(list(rank_of), responses),
        "ranks": list(rank_of.values()),
        **_marks(responses, replies_finished(row, len(responses))),
        **({"subset": row["subset"]} if "subset" in row else {}),
    }
    return [record, *_copies(len(responses) - len(rank_of))]


def ranking_of_scores(
    prompt: Turns,
    responses: Sequence[str],
    scores: Sequence[float],
    *,
    subset: object = None,
    finished: Sequence[bool | None] = (),
    options: ConvertOptions,
) -> list[dict[str, Any] | SkippedPart]:
    """One ranking from replies and their scores, and a `SkippedPart` for each repeated reply.

    Raises:
        PreferenceDataError: Fewer than two replies differ.
    """
    given: dict[str, list[float]] = {}
    for text, score in zip(responses, scores, strict=True):
        given.setdefault(text, []).append(score)
    means = [sum(values) / len(values) for values in given.values()]
    record = {
        "prompt": prompt,
        "responses": _require_two(list(given), responses),
        "ranks": ranks_of_scores(means),
        **({"scores": means} if options.margins else {}),
        **_marks(responses, finished),
        **({} if subset is None else {"subset": subset}),
    }
    return [record, *_copies(len(responses) - len(given))]


def ranks_of_scores(scores: Sequence[float]) -> list[int]:
    """Ranks of scores: one more than the number of higher scores, so equal scores are ties."""
    ordered = sorted(scores, reverse=True)
    return [1 + ordered.index(score) for score in scores]


def _marks(responses: Sequence[str], finished: Sequence[bool | None]) -> dict[str, Any]:
    """Whether each different reply is finished, where that is known of any."""
    if all(mark is None for mark in finished):
        return {}
    marks: dict[str, bool | None] = {}
    for text, mark in zip(responses, finished, strict=True):
        marks[text] = mark if marks.get(text) is None else marks[text]
    return {"finished": list(marks.values())}


def _numbers(row: Row, name: str, count: int) -> list[float]:
    required = f"a list of {count} finite numbers, one a response"
    if name not in row:
        raise missing(name, row, required)
    value = row[name]
    numbers = [read_number(item) for item in value] if isinstance(value, list) else []
    if len(numbers) != count or not all(abs(number) < float("inf") for number in numbers):
        raise bad_value(name, value, required)
    return numbers


def _require_two(texts: list[str], given: Sequence[str]) -> list[str]:
    if len(texts) < 2:
        raise PreferenceDataError(
            f"found {len(given)} replies of which {len(texts)} differ; required are at least two "
            'different ones, or there is nothing to compare. Drop the row (on_bad_row="skip").',
            reason="fewer than two different replies",
        )
    if not all(texts):
        raise bad_value("responses", list(given), f"{_TEXTS}, none of them empty")
    return texts


def _copies(count: int) -> list[SkippedPart]:
    return [SkippedPart("repeated reply of a ranking")] * count


SCORES = Format(
    "scores",
    "prompt, responses and scores: the higher the better, equal scores ties",
    convert_scores,
    signatures=(frozenset({"responses", "scores"}),),
    any_prompt=True,
)
RANKINGS = Format(
    "rankings",
    "prompt, responses and ranks: 1 is best, equal ranks ties",
    convert_rankings,
    signatures=(frozenset({"responses", "ranks"}),),
    any_prompt=True,
)
