"""The file `ensemble.json`: which models are the members of an ensemble, and how they are combined.

    {"members": ["../seed1", "../seed2"], "aggregate": "min", "weight": 1.0,
     "shifts": null, "scales": null}

Members are models, reference answers or other ensembles. A function cannot be one: its module's
code would be run by whoever loads the file. It is named where an ensemble is used instead,
`ensemble:runs/ensemble,python:mine.py:f`.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardmodel.aggregation import Aggregate, require_aggregate
from rewardmodel.model_source import ANSWERS, MEMBERS, PACKAGE, SIMULATED, resolve_model, runs_code
from search.evaluation.json_reading import read_object
from search.evaluation.records import write_json_atomic

ENSEMBLE_FILE = "ensemble.json"
_MOST_LEVELS = 8  # of ensembles in ensembles


def write_ensemble(
    folder: str | os.PathLike[str],
    members: Sequence[str],
    *,
    aggregate: Aggregate = "mean",
    weight: float = 1.0,
    shifts: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
) -> Path:
    """Writes `ensemble.json`.

    Args:
        folder: Where it goes.
        members: Whatever `rewardmodel.loading.load_reward_model` takes but functions; paths of
            folders and files (`.gguf`, `answers:FILE`) are kept relative to `folder`.
        aggregate: How the members' scores become one.
        weight: Of their disagreement.
        shifts: See `rewardmodel.ensemble.EnsembleRewardModel`.
        scales: See there.

    Raises:
        ValueError: If there are no members, one is a function, or there is no such aggregate.
        StorageError: If the disk is full.
    """
    require_aggregate(aggregate)
    if not members:
        raise ValueError("members: found none; required: at least 1 reward model")
    refuse_functions(members)
    folder = Path(folder)
    path = folder / ENSEMBLE_FILE
    write_json_atomic(
        path,
        {
            "members": [_kept_source(folder, name) for name in members],
            "aggregate": aggregate,
            "weight": weight,
            "shifts": None if shifts is None else list(shifts),
            "scales": None if scales is None else list(scales),
        },
    )
    return path


def refuse_functions(members: Sequence[str]) -> None:
    """Refuses functions among members that are going to be written down.

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
        ValueError: If it is missing, no JSON, names no members or a function, or a setting is
            wrong.
    """
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; required: the file that `prefsearch reward ensemble` writes"
        )
    written = read_object(path)
    members = written.get("members")
    if not isinstance(members, list) or not members or not all(map(_is_name, members)):
        raise ValueError(
            f"{path}: found members {members!r}; required: a list of folders or hub ids"
        )
    for name in members:
        if name.startswith(MEMBERS) and not runs_code(name):
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
    require_aggregate(written.get("aggregate", "mean"))
    _require_number(path, "weight", written.get("weight", 1.0))
    for setting in ("shifts", "scales"):
        numbers = written.get(setting)
        if numbers is not None and not isinstance(numbers, list):
            raise ValueError(
                f"{path}: found {setting} {numbers!r}; required: a list of numbers, or null"
            )
        for number in numbers or []:
            _require_number(path, setting, number)
    return written


def members_of(folder: Path) -> list[str]:
    """The members of the ensemble in a folder, as they can be loaded from anywhere.

    Raises:
        ValueError: As `read_ensemble`, of this ensemble and of those among its members; or if an
            ensemble is a member of itself, or they are nested too deeply.
    """
    _check_nesting(folder.resolve(), ())
    return [
        member_source(folder, name) for name in read_ensemble(folder / ENSEMBLE_FILE)["members"]
    ]


def _check_nesting(folder: Path, above: tuple[Path, ...]) -> None:
    """Refuses an ensemble that contains itself, by whatever path, or too many levels."""
    if folder in above:
        cycle = [*above[above.index(folder) :], folder]
        raise ValueError(
            f"{folder / ENSEMBLE_FILE}: the ensemble names itself as a member "
            f"({' -> '.join(map(str, cycle))}); required: no cycle. Leave one of them out"
        )
    if len(above) >= _MOST_LEVELS:
        raise ValueError(
            f"{folder / ENSEMBLE_FILE}: found an ensemble inside {len(above)} others "
            f"({' -> '.join(map(str, above[:3]))} ...); required: at most {_MOST_LEVELS} levels. "
            "Name the members in one file"
        )
    for name in read_ensemble(folder / ENSEMBLE_FILE)["members"]:
        source = member_source(folder, name)
        if source == SIMULATED or source.startswith(ANSWERS):
            continue
        inside = Path(resolve_model(source) if source.startswith(PACKAGE) else source)
        if (inside / ENSEMBLE_FILE).is_file():
            _check_nesting(inside.resolve(), (*above, folder))


def member_source(folder: Path, name: str) -> str:
    """A member as it can be loaded from anywhere."""
    before, place, after = _place_in(name)
    beside = folder / place
    return f"{before}{beside.resolve()}{after}" if place and beside.exists() else name


def _kept_source(folder: Path, name: str) -> str:
    """A member as it is written in a folder, its path relative to that."""
    before, place, after = _place_in(name)
    path = Path(place).expanduser()
    if not path.exists():
        return name
    return before + Path(os.path.relpath(path, folder)).as_posix() + after


def _place_in(name: str) -> tuple[str, str, str]:
    """What stands before the path in the name of a reward model, the path, and what is behind."""
    function = re.fullmatch(r"(python:)?(.+\.py)(:[^:]*)", name)
    if function:
        return function[1] or "", function[2], function[3]
    file = name.removeprefix("answers:")
    return name[: len(name) - len(file)], file, ""


def _is_name(member: object) -> bool:
    return isinstance(member, str) and bool(member)


def _require_number(path: Path, name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number:
        raise ValueError(f"{path}: found {name} {value!r}; required: a finite number")
