"""UltraFeedback: replies scored by a judge, four to a prompt, or already made pairs of.

Binarized (`HuggingFaceH4/ultrafeedback_binarized`): `prompt`, `chosen` and `rejected` as messages,
`score_chosen`, `score_rejected`. Equal scores are a tie. Original (`openbmb/UltraFeedback`):
`instruction` and `completions`, each with a `response` and an `overall_score`: a ranking.

Source: Cui et al. 2023, "UltraFeedback"; Tunstall et al. 2023, "Zephyr" (binarized).
"""

from typing import Any

from rewardmodel.data.formats.fields import take_list, take_number, take_text
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.formats.ranked import ranking_of_scores
from rewardmodel.data.rows import PreferenceDataError, Row, SkippedPart


def convert_ultrafeedback(row: Row, options: ConvertOptions) -> list[dict[str, Any] | SkippedPart]:
    """One pair from a binarized row, one ranking from an original one.

    Raises:
        PreferenceDataError: A field is missing or wrong, or the scores contradict the choice.
    """
    if "completions" in row:
        return _ranking(row, options)
    chosen, rejected = take_number(row, "score_chosen"), take_number(row, "score_rejected")
    if chosen < rejected:
        raise PreferenceDataError(
            f"score_chosen is {chosen:g} and score_rejected {rejected:g}; required is a chosen "
            "reply that is not the lower one. Mend the row, drop it "
            '(on_bad_row="skip"), or pass format="plain" to leave the scores aside.',
            reason="chosen scored lower than rejected",
        )
    pair = {name: row[name] for name in ("prompt", "chosen", "rejected") if name in row}
    pair["chosen_probability"] = 0.5 if chosen == rejected else 1.0
    if options.margins:
        pair["margin"] = chosen - rejected
    return [pair]


def _ranking(row: Row, options: ConvertOptions) -> list[dict[str, Any] | SkippedPart]:
    question = take_text(row, "instruction", blank=False)
    completions = take_list(
        row, "completions", dict, required="a list of objects with response and overall_score"
    )
    replies = [take_text(completion, "response") for completion in completions]
    scores = [take_number(completion, "overall_score") for completion in completions]
    return ranking_of_scores(options.prompt_turns(question), replies, scores, options=options)


FORMAT = Format(
    "ultrafeedback",
    "UltraFeedback: scored completions, or pairs with score_chosen and score_rejected",
    convert_ultrafeedback,
    signatures=(
        frozenset({"instruction", "completions"}),
        frozenset({"chosen", "rejected", "score_chosen", "score_rejected"}),
    ),
    hub={"openbmb/UltraFeedback": {}, "HuggingFaceH4/ultrafeedback_binarized": {}},
    # The messages are those of chosen once more.
    aside=frozenset({"prompt_id", "messages", "source", "models"}),
)
