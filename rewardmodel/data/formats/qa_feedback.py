r"""QA-Feedback of FineGrainedRLHF: four answers to a question about passages, compared two by two.

A row is `question`, `passages` (lists of a title and sentences), `prediction 1` to `prediction 4`
and `preference`: six numbers in the order 1v2 1v3 1v4 2v3 2v4 3v4, where 1 and 2 name the better
answer and 0 is a tie. Each row gives six pairs, since six independent judgments need not agree on
an order. Pairs of identical answers are left out and counted, whatever the label.

The prompt is ours: for each passage "Passage: TITLE\nSENTENCES\n\n", then
"Question: QUESTION\n\nAnswer:", and an answer begins with a space. The question comes last because
a prompt that is too long is cut from its left. The first sentence of a passage often repeats the
title on a line of its own; that line is removed. A question without passages stands alone.

Source: Wu et al. 2023, "Fine-Grained Human Feedback Gives Better Rewards".
"""

from typing import Any

from rewardmodel.data.formats.fields import bad_value, take_list, take_text
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.rows import Row, SkippedPart

ORDER = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))
_SIX = "a list of six numbers, each 1, 2 or 0 for a tie, in the order 1v2 1v3 1v4 2v3 2v4 3v4"
_PASSAGES = "a list of passages, each a title and its sentences"


def convert_qa_feedback(row: Row, _options: ConvertOptions) -> list[dict[str, Any] | SkippedPart]:
    """Six pairs, ties with a chosen_probability of one half.

    Raises:
        PreferenceDataError: A field is missing or wrong.
    """
    preferences = take_list(row, "preference", int, required=_SIX)
    if len(preferences) != 6 or any(isinstance(p, bool) or p not in (0, 1, 2) for p in preferences):
        raise bad_value("preference", preferences, _SIX)
    answers = {k: take_text(row, f"prediction {k}", blank=False) for k in range(1, 5)}
    prompt = _prompt(row)
    pairs: list[dict[str, Any] | SkippedPart] = []
    for (first, second), preference in zip(ORDER, preferences, strict=True):
        if answers[first] == answers[second]:
            pairs.append(SkippedPart("identical answers"))
            continue
        better, worse = (second, first) if preference == 2 else (first, second)
        pairs.append(
            {
                "prompt": prompt,
                "chosen": f" {answers[better].strip()}",
                "rejected": f" {answers[worse].strip()}",
                "chosen_probability": 0.5 if preference == 0 else 1.0,
            }
        )
    return pairs


def _prompt(row: Row) -> str:
    question = take_text(row, "question", blank=False).strip()
    parts = []
    for passage in take_list(row, "passages", list, required=_PASSAGES):
        if not passage or not all(isinstance(sentence, str) for sentence in passage):
            raise bad_value("passages", passage, _PASSAGES)
        title, *sentences = (" ".join(sentence.split()) for sentence in passage)
        if sentences and passage[1].startswith(f"{passage[0]}\n"):
            sentences[0] = sentences[0].removeprefix(title).strip()
        parts.append(f"Passage: {title}\n{' '.join(filter(None, sentences))}\n\n")
    return "".join(parts) + f"Question: {question}\n\nAnswer:"


FORMAT = Format(
    "qa_feedback",
    "QA-Feedback of FineGrainedRLHF: four answers compared two by two, with ties",
    convert_qa_feedback,
    signatures=(
        frozenset(
            {"question", "passages", "preference", *(f"prediction {k}" for k in range(1, 5))}
        ),
    ),
)
