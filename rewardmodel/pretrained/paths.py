"""The files and folders behind the name of a model or dataset, found without loading anything.

A name may stand for several: members of an ensemble, the base of an adapter, the module of a
function.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from prefsearch.cli.outputs import require_kept, resolve_outputs
from rewardmodel.models.ensemble_file import member_source
from rewardmodel.pretrained.source import (
    ANSWERS,
    FUNCTION,
    SIMULATED,
    named_members,
    names_function,
    place_of,
)


def keep_inputs(args: Any, *names: str) -> None:
    """Checks that a command's `outputs()` can be written and overwrite none of its inputs.

    `names` are the settings that hold its inputs, each one name or a list.

    Raises:
        ValueError: Naming the output, and the input if it is one.
    """
    inputs = {name: getattr(args, name) for name in names}
    for output in resolve_outputs(args):
        require_kept(
            inputs,
            files=output.files,
            folders=output.replaced_folders,
            setting=output.setting,
            places=places_of,
        )


def places_of(source: str) -> list[Path]:
    """The files and folders that a name stands for, with those they refer to."""
    found: dict[Path, None] = {}
    waiting = [source]
    while waiting:
        name = waiting.pop()
        members = named_members(name)
        if members is not None:
            waiting += members
            continue
        place = _place(name)
        if place is None or Path(os.path.realpath(place)) in found:
            continue
        found[Path(os.path.realpath(place))] = None
        if place.is_dir():
            waiting += named_beneath(place)
    return list(found)


def named_file(source: str) -> Path | None:
    """The file in the name of a function or of reference answers, or None."""
    if source.startswith(ANSWERS):
        return Path(os.path.expanduser(source.removeprefix(ANSWERS)))
    name, _, attribute = source.removeprefix(FUNCTION).rpartition(":")
    if name.endswith(".py") and attribute.isidentifier():
        return Path(os.path.expanduser(name))
    return None


def named_beneath(folder: Path) -> list[str]:
    """The base of an adapter, or the members of an ensemble."""
    names: list[str] = []
    for file, key in (
        ("adapter_config.json", "base_model_name_or_path"), ("ensemble.json", "members"),
    ):  # fmt: skip
        path = folder / file
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else []
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # an error when it is loaded
        several: Sequence[object] = found if isinstance(found, list) else [found] if found else []
        names += [member_source(folder, str(name)) for name in several]
    return names


def function_file(source: str) -> Path | None:
    """The file of a function or its module, or of reference answers."""
    file = named_file(source)
    if file is None and names_function(source):
        file = _module_file(source.removeprefix(FUNCTION).rpartition(":")[0])
    return file


def _place(source: str) -> Path | None:
    """The path that one name stands for, if it exists."""
    if source in ("", SIMULATED, ANSWERS):
        return None
    try:
        file = function_file(source)
        if file is None and not names_function(source):
            file = Path(place_of(source))
        return file if file is not None and file.exists() else None
    except (OSError, ValueError):  # a text that is no path, or no package that is installed
        return None


def _module_file(name: str) -> Path | None:
    """The file of a module, found without importing the packages around it."""
    file = Path(os.path.expanduser(name))
    if file.is_file():
        return file
    places: Sequence[str] | None = [os.getcwd(), *sys.path]
    spec: ModuleSpec | None = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, places) if places else None
        places = None if spec is None else spec.submodule_search_locations
    return None if spec is None or spec.origin is None else Path(spec.origin)
