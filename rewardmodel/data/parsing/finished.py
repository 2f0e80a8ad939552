"""Columns that say whether a reply is finished.

A reply is finished where its writer ended it, and unfinished where it was cut off at a length.
Columns hold true or false, of several replies a list; `finish_reason` and `stop_reason` are those
of servers' completions.
"""

from collections.abc import Sequence

from rewardmodel.data.rows import PreferenceDataError, Row, peek

PAIR_COLUMNS = ("chosen_finished", "rejected_finished")
"""Of preferences: whether each reply is finished."""
_COLUMNS = ("response_finished", "finished", "finish_reason", "stop_reason")
_WORDS = {"true": True, "1": True, "false": False, "0": False}  # as tables of text hold them
_REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls",
                     "tool_use", "function_call"), True),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_new_tokens", "abort",
                     "content_filter", "model_length"), False),
}  # fmt: skip


def read_finished(row: Row, column: str) -> bool | None:
    """Whether a reply is finished by a column; None where it is empty.

    Raises:
        PreferenceDataError: If it is neither true, false nor null.
    """
    return _value(row.get(column), column)


def replies_finished(row: Row, count: int) -> list[bool | None]:
    """Whether each of `count` replies of a row is finished, by the first column that has values.

    The columns are `response_finished`, `finished`, `finish_reason` and `stop_reason`, with one
    value for all replies or a list. None is unknown.

    Raises:
        PreferenceDataError: If a list has another length, or a value is neither true, false nor
            null.
    """
    for column in _COLUMNS:
        if peek(row, column) in (None, "", []):
            continue
        held = row[column]
        marks = held if isinstance(held, list) else [held] * count
        if len(marks) != count:
            raise PreferenceDataError(
                f"column {column!r} has {len(marks)} values for {count} replies; required is one "
                "for each, or one for all. Mend it, or drop the row "
                '(on_bad_row="skip").',
                reason=f"bad {column}",
            )
        read = _reason if column.endswith("reason") else _value
        found = [read(mark, column) for mark in marks]
        if any(mark is not None for mark in found):
            return found
    return [None] * count


def finished_marks(row: Row, count: int) -> Sequence[bool]:
    """As `replies_finished`, unknown ones being finished."""
    return [mark is not False for mark in replies_finished(row, count)]


def _value(value: object, column: str) -> bool | None:
    if value is None or value == "":
        return None
    if value in (True, False):
        return bool(value)
    known = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None:
        raise PreferenceDataError(
            f"column {column!r} holds {type(value).__name__} {repr(value)[:60]}; required is true, "
            "false or null: whether the reply ended by itself and was not cut off. Mend or remove "
            "it.",
            reason=f"bad {column}",
        )
    return known


def _reason(value: object, _: str) -> bool | None:
    return _REASONS.get(value.strip().lower()) if isinstance(value, str) else None
