r"""`Anthropic/hh-rlhf`: two transcripts that share all but the end.

A row is `chosen` and `rejected`, each a whole conversation of "\n\nHuman:" and "\n\nAssistant:"
turns. The prompt is what both share up to the last "\n\nAssistant:"; a row without a shared
assistant turn is bad.

Source: Bai et al. 2022, "Training a Helpful and Harmless Assistant".
"""

from typing import Any

from rewardmodel.data.chat_template import common_prefix_length
from rewardmodel.data.formats.fields import take_text
from rewardmodel.data.formats.format import ConvertOptions, Format
from rewardmodel.data.parsing.reply_text import ASSISTANT_TURN
from rewardmodel.data.rows import PreferenceDataError, Row


def convert_hh(row: Row, _options: ConvertOptions) -> list[dict[str, Any]]:
    """One pair of transcripts with an implicit prompt.

    Raises:
        PreferenceDataError: Not two transcripts, or none that share an assistant turn.
    """
    chosen = take_text(row, "chosen", blank=False)
    rejected = take_text(row, "rejected", blank=False)
    shared = chosen[: common_prefix_length(chosen, rejected)]
    if ASSISTANT_TURN not in shared:
        raise PreferenceDataError(
            f"the transcripts share {shared[-60:]!r} and no {ASSISTANT_TURN!r} turn; required are "
            'two that part in an assistant turn. Pass format="plain" and implicit_prompt=True to '
            'part them at white space, or drop the row (on_bad_row="skip").',
            reason="no shared assistant turn",
        )
    return [{"chosen": chosen, "rejected": rejected}]


FORMAT = Format(
    "hh",
    "Anthropic/hh-rlhf: two transcripts that share their beginning",
    convert_hh,
    hub={"Anthropic/hh-rlhf": {}},
)
