r"""The settings that prefsearch keeps in a model's config.json: their types and bounds.

    {"reward_shift": 0.7, "reward_heads": 3, "step_separator": "\n\n",
     "input_format": {"version": 1, "name": "text", "messages": false}}

transformers keeps such entries without checking them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from prefsearch.config.checks import shown
from prefsearch.storage.json_text import read_object

InputFormat = Literal["text", "pair"]
INPUT_FORMATS: tuple[str, ...] = get_args(InputFormat)
FORMAT_VERSION = 1
OWN_SETTINGS = ("reward_shift", "reward_heads", "step_separator", "input_format")
_MOST_SHIFT = 1e9  # beyond which float32 does not distinguish scores
_MOST_HEADS = 10_000


def require_own_settings(where: object, config: Mapping[str, Any]) -> None:
    """Refuses settings in a `config.json` of the wrong type or out of bounds; null is unset.

    Raises:
        ValueError: Naming file and key, what was found and what is required.
    """
    heads = config.get("reward_heads")
    if heads is not None and not (_is_whole(heads) and 1 <= heads <= _MOST_HEADS):
        _refuse(where, "reward_heads", heads, f"a whole number from 1 to {_MOST_HEADS}")
    _require_shift(where, config.get("reward_shift"), heads)
    separator = config.get("step_separator")
    if separator is not None and not (isinstance(separator, str) and separator):
        _refuse(where, "step_separator", separator, "the text between steps, not empty")
    _require_format(where, config.get("input_format"))


def read_own_settings(path: Path) -> dict[str, Any]:
    """The settings of prefsearch in a `config.json`; empty where there is no such file.

    Raises:
        ValueError: If it is no JSON, or as `require_own_settings`.
    """
    if not path.is_file():
        return {}
    config = read_object(path)
    require_own_settings(path, config)
    return {name: config[name] for name in OWN_SETTINGS if name in config}


def shift_of(config: Any) -> float:
    """The shift that is subtracted from a model's score."""
    shift = getattr(config, "reward_shift", None) or 0.0
    return float(shift[0] if isinstance(shift, list | tuple) else shift)


def _require_shift(where: object, shift: object, heads: int | None) -> None:
    if shift is None or _is_shift(shift):
        return
    bounds = f"a number from {-_MOST_SHIFT:g} to {_MOST_SHIFT:g}"
    if heads is None:
        _refuse(where, "reward_shift", shift, bounds)
    if not isinstance(shift, list) or len(shift) != heads or not all(map(_is_shift, shift)):
        _refuse(
            where, "reward_shift", shift, f"{bounds}, or {heads} of them, one for each reward head"
        )


def _require_format(where: object, held: object) -> None:
    if held is None:
        return
    known = (
        isinstance(held, Mapping)
        and _is_whole(held.get("version"))
        and held["version"] == FORMAT_VERSION
        and held.get("name") in INPUT_FORMATS
        and isinstance(held.get("messages", False), bool)
    )
    if not known:
        _refuse(
            where,
            "input_format",
            held,
            f"version {FORMAT_VERSION}, a name among {', '.join(INPUT_FORMATS)}, and messages true "
            "or false",
            remedy="Update prefsearch if a later version wrote it, or take it out and say by "
            "input_format how the model was trained",
        )


def _is_shift(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_MOST_SHIFT <= value <= _MOST_SHIFT  # type: ignore[operator]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(
    where: object,
    name: str,
    found: object,
    required: str,
    *,
    remedy: str = "Put the config.json there that training saved, or take the entry out",
) -> None:
    raise ValueError(f"{where}: found {name} {shown(found)}; required: {required}. {remedy}")
