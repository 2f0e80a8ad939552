"""The file `ensemble.json`: the members of an ensemble, and how their scores are combined.

    {"members": ["../seed1", "../seed2"], "aggregate": "min", "weight": 1.0,
     "shifts": null, "scales": null}

Members are models, reference answers or other ensembles. Functions are refused, since loading the
file would run their code; name them where an ensemble is used,
`ensemble:runs/ensemble,python:mine.py:f`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefsearch.config.checks import nearest, shown
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.json_text import read_object
from rewardmodel.models.aggregation import Aggregate, require_aggregate
from rewardmodel.pretrained.source import (
    ANSWERS,
    MEMBERS,
    PACKAGE,
    SIMULATED,
    named_members,
    resolve_model,
    runs_code,
)

ENSEMBLE_FILE = "ensemble.json"
MOST_MEMBERS = 256
"""Models in an ensemble, those of ensembles inside it included; each is loaded."""
_MOST_LEVELS = 8  # of ensembles in ensembles
_SETTINGS = ("members", "aggregate", "weight", "shifts", "scales")
# Within these bounds, float32 distinguishes shifted and scaled scores.
_MOST_WEIGHT = 1e6
_MOST_SHIFT = 1e12
_SCALES = (1e-12, 1e12)


def write_ensemble(
    folder: str | os.PathLike[str],
    members: Sequence[str],
    *,
    aggregate: Aggregate = "mean",
    weight: float = 1.0,
    shifts: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
) -> Path:
    """Writes `ensemble.json` into a folder that holds nothing else, and returns its path.

    Members are names as `load_reward_model` takes them, but functions; paths are kept relative to
    the folder. Other arguments as `rewardmodel.models.ensemble.EnsembleRewardModel`.

    Raises:
        ValueError: If one is a function, or as `require_combination`.
        StorageError: If the disk is full.
    """
    require_combination(len(members), aggregate, weight=weight, shifts=shifts, scales=scales)
    refuse_functions(members)
    folder = Path(folder)
    held = {p.name for p in folder.iterdir()} if folder.is_dir() else set[str]()
    if more := sorted(name for name in held - {ENSEMBLE_FILE} if not name.startswith(".")):
        raise ValueError(
            f"{folder} holds {', '.join(more[:5])}; required: a new folder, or one with an "
            f"{ENSEMBLE_FILE} alone, since it makes an ensemble of the folder. Choose another one"
        )
    write_json_atomic(
        folder / ENSEMBLE_FILE,
        {
            "members": [_kept_source(folder, name) for name in members],
            "aggregate": aggregate,
            "weight": weight,
            "shifts": None if shifts is None else list(shifts),
            "scales": None if scales is None else list(scales),
        },
    )
    return folder / ENSEMBLE_FILE


def require_combination(
    members: int, aggregate: object, *, weight: object, shifts: object, scales: object
) -> None:
    """Refuses settings with which scores of so many members cannot be combined.

    Raises:
        ValueError: Naming the setting.
    """
    if not members:
        raise ValueError("members: found none; required: at least 1 reward model")
    if members > MOST_MEMBERS:
        raise ValueError(
            f"members: found {members}; required: at most {MOST_MEMBERS}, since each is loaded. "
            "Leave some out, or average their weights with `prefsearch reward average`"
        )
    require_aggregate(aggregate)
    _require_number("weight", weight, -_MOST_WEIGHT, _MOST_WEIGHT)
    for name, values, least, most in (
        ("shifts", shifts, -_MOST_SHIFT, _MOST_SHIFT),
        ("scales", scales, *_SCALES),
    ):
        if values is None:
            continue
        if not isinstance(values, list | tuple):
            raise ValueError(f"{name}: found {shown(values)}; required: a list of numbers, or null")
        if len(values) != members:
            raise ValueError(
                f"{name}: found {len(values)} for {members} members; required: one each"
            )
        for value in values:
            _require_number(name, value, least, most)


def refuse_functions(members: Sequence[str]) -> None:
    """Refuses functions among the members of an `ensemble.json`.

    Raises:
        ValueError: Naming them, and how to combine them with models.
    """
    functions = [name for name in members if runs_code(name)]
    if functions:
        raise ValueError(
            f"members: found {', '.join(functions)}, code that would be run by whoever loads "
            f"{ENSEMBLE_FILE}; required: models and answers:FILE. Name functions where the "
            f"ensemble is used: {MEMBERS}{','.join(members)} is a reward model by its members"
        )


def read_ensemble(path: Path) -> dict[str, Any]:
    """Reads an `ensemble.json`.

    Raises:
        ValueError: If it is missing, no JSON, names no members, too many or a function, or a
            setting is wrong or unknown.
    """
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; required: the file that `prefsearch reward ensemble` writes"
        )
    written = read_object(path)
    members = written.get("members")
    named = isinstance(members, list) and all(isinstance(m, str) and m for m in members)
    if not named or not members:
        raise ValueError(
            f"{path}: found members {shown(members)}; required: a list of folders or hub ids"
        )
    unknown = [name for name in written if name not in _SETTINGS]
    if unknown:
        raise ValueError(
            f"{path}: found the setting {shown(unknown[0])}; required: one of "
            f"{', '.join(_SETTINGS)}. {nearest(unknown[0], _SETTINGS)}Take it out of the file"
        )
    try:
        require_combination(
            len(members),
            written.get("aggregate", "mean"),
            weight=written.get("weight", 1.0),
            shifts=written.get("shifts"),
            scales=written.get("scales"),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name in members:
        if named_members(name) is not None and not runs_code(name):
            raise ValueError(
                f"{path}: found the member {name!r}; required: one model a member. Name each of "
                "its members in the list"
            )
        if runs_code(member_source(path.parent, name)):
            raise ValueError(
                f"{path}: found the member {name!r}, a function whose code would be run; required: "
                "models, since no code that a file names is run. Take it out of the file, and name "
                f"it on the command line or in Python: {MEMBERS}{path.parent},"
                f"{name.removeprefix(MEMBERS)}"
            )
    return written


def members_of(folder: Path) -> list[str]:
    """The members of the ensemble in a folder, as names that can be loaded from anywhere.

    Raises:
        ValueError: As `read_ensemble`, of this ensemble and of those among its members; or if an
            ensemble is a member of itself, they are nested too deeply, or there are too many
            members in all.
    """
    _check_nesting(folder.resolve(), (), {})
    return [
        member_source(folder, name) for name in read_ensemble(folder / ENSEMBLE_FILE)["members"]
    ]


def _check_nesting(
    folder: Path, above: tuple[Path, ...], known: dict[Path, tuple[int, int]]
) -> tuple[int, int]:
    """Counts the models and the levels of an ensemble; refuses cycles and too many of either.

    `above` are the ensembles around it; `known` the counts so far, so that each file is read once.
    """
    path = folder / ENSEMBLE_FILE
    if folder in above:
        cycle = [*above[above.index(folder) :], folder]
        raise ValueError(
            f"{path}: the ensemble names itself as a member ({' -> '.join(map(str, cycle))}); "
            "required: no cycle. Leave one of them out"
        )
    levels = known[folder][1] if folder in known else 1
    if len(above) + levels > _MOST_LEVELS:
        raise ValueError(
            f"{path}: found an ensemble inside {len(above)} others "
            f"({' -> '.join(map(str, above[:3]))} ...); required: at most {_MOST_LEVELS} levels. "
            "Name the members in one file"
        )
    if folder in known:
        return known[folder]
    members = 0
    for name in read_ensemble(path)["members"]:
        inside = _ensemble_inside(member_source(folder, name))
        if inside is None:
            members += 1
        else:
            more, deeper = _check_nesting(inside, (*above, folder), known)
            members, levels = members + more, max(levels, 1 + deeper)
    if members > MOST_MEMBERS:
        raise ValueError(
            f"{path}: found {members} members in all, those of ensembles inside it included; "
            f"required: at most {MOST_MEMBERS}, since each is loaded. Name fewer"
        )
    known[folder] = members, levels
    return known[folder]


def _ensemble_inside(source: str) -> Path | None:
    """The folder of a member that is an ensemble itself."""
    if source == SIMULATED or source.startswith(ANSWERS):
        return None
    inside = Path(resolve_model(source) if source.startswith(PACKAGE) else source)
    return inside.resolve() if (inside / ENSEMBLE_FILE).is_file() else None


def member_source(folder: Path, name: str) -> str:
    """A member's name, its path made absolute."""
    before, place, after = _place_in(name)
    beside = folder / place
    return f"{before}{beside.resolve()}{after}" if place and beside.exists() else name


def _kept_source(folder: Path, name: str) -> str:
    """A member's name, its path made relative to a folder."""
    before, place, after = _place_in(name)
    path = Path(place).expanduser()
    if not path.exists():
        return name
    return before + Path(os.path.relpath(path, folder)).as_posix() + after


def _place_in(name: str) -> tuple[str, str, str]:
    """The parts of a reward model's name before its path, the path, and behind it."""
    function = re.fullmatch(r"(python:)?(.+\.py)(:[^:]*)", name)
    if function:
        return function[1] or "", function[2], function[3]
    file = name.removeprefix("answers:")
    return name[: len(name) - len(file)], file, ""


def _require_number(name: str, value: object, least: float, most: float) -> None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not (known and least <= value <= most):  # type: ignore[operator]
        positive = "positive numbers, each " if least > 0 else "a finite number "
        raise ValueError(
            f"{name}: found {shown(value)}; required: {positive}from {least:g} to {most:g}"
        )
