"""Whether a reply is finished, as columns of data say it.

A reply is finished where its writer ended it, and unfinished where it was cut off at a length. The
project's own columns hold true or false; `finish_reason` is that of servers' chat completions.
"""

from typing import Any

from rewardmodel.data.rows import PreferenceDataError, Row

PAIR_COLUMNS = ("chosen_finished", "rejected_finished")
"""Of preferences: whether each reply is finished."""
_WORDS = {"true": True, "1": True, "false": False, "0": False}  # as tables of text hold them
_REASONS = {"stop": True, "eos": True, "stop_sequence": True, "end_turn": True,
            "tool_calls": True, "length": False, "max_tokens": False}  # fmt: skip


def read_finished(row: Row, column: str) -> bool | None:
    """Whether a column says that a reply is finished; None where it says nothing.

    Raises:
        PreferenceDataError: If it is neither true, false nor null.
    """
    return finished_value(row.get(column), column)


def finished_value(value: Any, column: str) -> bool | None:
    """Whether the value of a column says that a reply is finished; None where it says nothing.

    Raises:
        PreferenceDataError: As `read_finished`.
    """
    if value is None or value == "":
        return None
    if value in (True, False):
        return bool(value)
    known = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None:
        raise PreferenceDataError(
            f"column {column!r} holds {type(value).__name__} {value!r}; required is true, false or "
            "null: whether the reply ended by itself and was not cut off. Mend or remove it.",
            reason=f"bad {column}",
        )
    return known


def demonstrated_to_the_end(row: Row) -> bool | None:
    """Whether a demonstration is finished, by `finished` or `finish_reason`; None if not said."""
    told = read_finished(row, "finished")
    if told is not None:
        return told
    reason = row.get("finish_reason")
    return _REASONS.get(reason.strip().lower()) if isinstance(reason, str) else None
