"""Errors raised by user-supplied code.

Whatever it raises, `SystemExit` included, becomes one error that names the code, the file and the
line, with the cause kept: `PREFSEARCH_TRACEBACK=1` shows it. An interrupt stays one.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / package}/" for package in (
    "rewardmodel", "policies", "search", "atari_bridge", "prefsearch",
))  # fmt: skip
_MACHINERY = ("/importlib/", "/contextlib.py")
_LIBRARIES = ("site-packages", "dist-packages")


class UserCodeError(ValueError):
    """User-supplied code failed or returned an invalid result; its own error is the cause."""


@contextmanager
def running_user_code(what: str, *, required: str) -> Iterator[None]:
    """Context manager that names the user code in any exception it raises.

    Args:
        what: The code, and its input.
        required: Of it, and the remedy.

    Raises:
        UserCodeError: Instead of any exception but `KeyboardInterrupt`, `SystemExit` included.
    """
    try:
        yield
    except (KeyboardInterrupt, UserCodeError):
        raise
    except BaseException as error:
        raise UserCodeError(f"{what}: {_description(error)}; required: {required}") from error


def _description(error: BaseException) -> str:
    """Location, class and message of an exception raised by user code."""
    kind, message = type(error).__name__, _text(error)
    if isinstance(error, SyntaxError) and error.filename is not None:
        where, message = f"{error.filename}:{error.lineno}: ", error.msg
    else:
        where = _place(error.__traceback__)
    return f"{where}{kind}{': ' if message else ''}{message}"


def shown_value(value: object) -> str:
    """The repr of a user's value for a message; never raises."""
    try:
        return repr(value)[:60]
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        return f"a {type(value).__name__}"


def _text(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:300]
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001  an exception may itself be broken
        return f"({type(broken).__name__} in its own text)"


def _place(trace: TracebackType | None) -> str:
    """The innermost frame of an exception in a user's file, as `file:line: `."""
    frames = [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith(("<", *_OURS))
        and not any(part in frame.filename for part in _MACHINERY)
    ]
    own = [f for f in frames if not any(part in f.filename for part in _LIBRARIES)] or frames
    # Not the line of a library which it called.
    own = [frame for frame in own if frame.filename == own[0].filename]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
